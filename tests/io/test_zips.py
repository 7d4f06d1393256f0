"""Files that claim more than they should: refused by what they declare, before any of it is unpacked."""

import pickle
import struct
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
from mutations import generator, mutate
from scenes import image, make_cityscapes, save, zip_cityscapes
from torch_files import write_state_dict

from kseg.data.datasets import cityscapes, listing
from kseg.data.datasets.listing import archive_names, read_bytes
from kseg.inference import cityscapes_submission_check
from kseg.inference.loading import load_model
from kseg.io import tfrecord, zips
from kseg.io.errors import InputError
from kseg.models.pretrained.keras_file import read_arrays
from kseg.models.pretrained.torch_file import read_state_dict
from kseg.runs.checkpoints import restore_checkpoint

CLAIM = 40_000_000  # bytes of zeros, a few kilobytes when deflated
ROOM = 4_000_000  # bytes that a refusal may take


def write_zeros(path, name, count=CLAIM, method=zipfile.ZIP_DEFLATED):
    archive = zipfile.ZipFile(path, "w", method)
    with archive, archive.open(name, "w") as file:
        for _ in range(count // 10**6):
            file.write(bytes(10**6))
    del archive, file  # compressing needs room too
    tracemalloc.reset_peak()
    return path


@pytest.fixture
def little_memory():
    """Fail where Python's peak is above ROOM: what was claimed was unpacked."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < ROOM, f"{peak} bytes"


def test_a_member_that_declares_more_than_is_read(tmp_path, little_memory):
    path = write_zeros(tmp_path / "a.zip", "x.png")
    assert path.stat().st_size < CLAIM / 500
    with pytest.raises(InputError, match="a.zip:x.png: it claims 40,000,000 bytes, but at most 1,000 are read"):
        read_bytes((str(path), "x.png"), 1000)


def test_a_member_that_declares_less_than_it_holds(tmp_path, little_memory):
    """Its size is a lie in both headers: no more than it says comes out, and the checksum tells."""
    path = write_zeros(tmp_path / "a.zip", "x.png")
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", CLAIM), struct.pack("<I", 1000)))
    with pytest.raises(InputError, match="a.zip:x.png: damaged in the zip .Bad CRC-32"):
        read_bytes((str(path), "x.png"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound(tmp_path, method, little_memory):
    path = write_zeros(tmp_path / "a.zip", "x.png", 10**6, method)
    with pytest.raises(InputError, match="not compressed with deflate: zip it again"):
        read_bytes((str(path), "x.png"))


def test_encrypted_and_missing_members(tmp_path):
    path = write_zeros(tmp_path / "a.zip", "x.png", 10**6)
    with pytest.raises(InputError, match="y.png is not in the zip"):
        read_bytes((str(path), "y.png"))
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # where the two headers have their flags
        data[data.find(mark) + at] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="it is encrypted: zip it again without a password"):
        read_bytes((str(path), "x.png"))


def test_damaged_zips_are_read_right_or_refused(tmp_path):
    """Bits and bytes changed anywhere, half the time in the headers."""
    contents = {f"{i}.png": np.random.default_rng(i).integers(0, 9, 200, np.uint8).tobytes() for i in range(3)}
    with zipfile.ZipFile(tmp_path / "whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    whole = (tmp_path / "whole.zip").read_bytes()
    headers = [i for i in range(len(whole)) if b"PK" in whole[max(0, i - 46) : i]]
    refused = 0
    for case in range(400):
        random = generator(case)
        data = bytearray(mutate(whole, random))
        if case % 2:
            data = bytearray(whole)
            data[random.choice(headers)] ^= int(random.integers(1, 256))
        path = tmp_path / f"{case}.zip"
        path.write_bytes(data)
        for name in contents:
            try:
                assert read_bytes((str(path), name)) == contents[name]
                archive_names(str(path))
            except InputError as error:
                assert path.name in str(error)
                refused += 1
    assert 200 < refused < 1200


def test_a_file_by_its_size(tmp_path):
    path = tmp_path / "x.png"
    with open(path, "wb") as file:
        file.truncate(listing.MAX_BYTES + 1)  # takes no room on the disk
    assert listing.MAX_BYTES == 8 * 8192 * 8192
    with pytest.raises(InputError, match="x.png has 536,870,913 bytes, but at most 536,870,912 are read"):
        read_bytes(str(path))


def test_a_zip_replaced_on_disk_is_read_anew(tmp_path):
    zipped = zip_cityscapes(make_cityscapes(tmp_path / "one"), tmp_path / "zips")
    frame = cityscapes.read(zipped).splits["train"][0]
    before = read_bytes(frame.image)
    make_cityscapes(tmp_path / "two", train=6)
    changed = tmp_path / "two/leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png"
    save(changed, image(99))
    again = zip_cityscapes(tmp_path / "two", tmp_path / "more")
    for path in again.iterdir():
        path.replace(zipped / path.name)
    assert len(cityscapes.read(zipped).splits["train"]) == 6
    assert read_bytes(frame.image) == changed.read_bytes() != before
    assert listing.stamp(frame.image) == [changed.stat().st_size, zipfile.zlib.crc32(changed.read_bytes())]


def test_a_submission_of_bombs(tmp_path, little_memory):
    name = "berlin_000000_000019.png"
    path = write_zeros(tmp_path / "maps.zip", name)
    big = np.zeros((4096, 4096), np.uint8)
    save(tmp_path / "pixels" / name, big)
    del big
    tracemalloc.reset_peak()
    with pytest.raises(
        InputError, match=r"1 of 1 label maps cannot be read: .*40,000,000 bytes, but at most 16,777,216"
    ):
        cityscapes_submission_check.check_submission(path)
    with pytest.raises(
        InputError, match=r"1 of 1 label maps are not 2048x1024: berlin_000000_000019.png \(4096x4096\)"
    ):
        cityscapes_submission_check.check_submission(tmp_path / "pixels")


def test_weights_that_would_unpack_to_more(tmp_path, monkeypatch, little_memory):
    monkeypatch.setattr(zips, "MAX_UNPACKED", 10**6)
    monkeypatch.setattr("kseg.models.pretrained.keras_file.MAX_UNPACKED", 10**6)
    says = "it claims to unpack to 40,000,000 bytes, but at most 1,000,000 are read"
    with pytest.raises(InputError, match=f"a.pth as a PyTorch state dict: {says}"):
        read_state_dict(write_zeros(tmp_path / "a.pth", "x/data.pkl"))
    with pytest.raises(InputError, match=f"a.keras is damaged or not a .keras file: {says}"):
        load_model(write_zeros(tmp_path / "a.keras", "config.json"))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kernel", (10**7,), "f4", chunks=(10**6,), compression="gzip")  # no chunk is written
    assert (tmp_path / "a.h5").stat().st_size < 10**5
    with pytest.raises(InputError, match="a.h5 claims to hold 40,000,000 bytes, but at most 1,000,000 are read"):
        read_arrays(tmp_path / "a.h5")
    with pytest.raises(InputError, match="it is compressed"):
        restore_checkpoint(write_zeros(tmp_path / "step-1.npz", "header.npy"), {})


def test_one_storage_that_many_tensors_share_is_read_once(tmp_path, monkeypatch):
    """The pickle may name a storage as often as it likes."""
    path = tmp_path / "a.pth"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_state_dict(path, {"a": array})
    with zipfile.ZipFile(path) as archive:
        whole = {name: archive.read(name) for name in archive.namelist()}
    reads = []
    place = "kseg.models.pretrained.torch_file.read_member"
    monkeypatch.setattr(place, lambda archive, name, most: reads.append(name) or whole[name])
    np.testing.assert_array_equal(read_state_dict(path)["a"], array)
    assert sorted(reads) == sorted(whole)


def test_a_stream_whose_storages_are_larger_than_the_file(tmp_path):
    """Each storage alone would fit; together they do not."""

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def storage(key):  # ("storage", torch.ByteStorage, key, "cpu", 3000) by its persistent id
        named = text("storage") + b"ctorch\nByteStorage\n" + text(key) + text("cpu")
        return b"(" + named + b"M" + struct.pack("<H", 3000) + b"tQ"

    path = tmp_path / "old.pth"
    with path.open("wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {}):
            pickle.dump(value, file, protocol=2)
        file.write(b"\x80\x02](" + storage("0") + storage("1") + b"e." + bytes(4000))
    with pytest.raises(InputError, match="old.pth as a PyTorch state dict: storage 1 is larger than the file"):
        read_state_dict(path)


def test_a_record_that_claims_more_than_is_read(tmp_path):
    """The length has its checksum: only who wrote it could mean harm."""
    length = struct.pack("<Q", 2**40)
    path = tmp_path / "train-00000-of-00001"
    path.write_bytes(length + struct.pack("<I", tfrecord._masked_crc(length)) + bytes(100))
    says = "Record 0 of shard .* is corrupt .it claims 1,099,511,627,776 bytes, but at most 1,073,741,824 are read"
    with pytest.raises(InputError, match=says):
        tfrecord.read_record(str(path), 0, 0)
    with pytest.raises(InputError, match=says):
        list(tfrecord.scan(str(path)))
    assert issubclass(InputError, ValueError)
