"""TFRecord bytes, Examples and manifests: equal to TensorFlow's, and clear about what is broken."""

import json

import numpy as np
import pytest
from scenes import H, W, decoded, image, label, make_camvid

from kseg.data.datasets import camvid
from kseg.data.records import manifest as records
from kseg.data.records.prepare import prepare_dataset
from kseg.io import images, tfrecord

KEYS = {f"image/{key}" for key in ("encoded", "filename", "format", "height", "width", "channels")}
KEYS |= {f"image/segmentation/class/{key}" for key in ("encoded", "format", "label_space")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """CamVid-like records: 5 training frames in 2 shards, 2 validation frames in 2."""
    root = tmp_path_factory.mktemp("records")
    prepare_dataset("camvid", make_camvid(root / "camvid"), root / "out", shards=2, workers=1, progress=False)
    return root / "out"


@pytest.fixture
def copy(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


def deeplab_shard(tf, path, frames, **changes):
    """Write a shard as DeepLab's converter does, by TensorFlow's own writer."""

    def feature(value):
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    with tf.io.TFRecordWriter(str(path)) as writer:
        for i in frames:
            values = {
                "image/encoded": images.encode(image(i)),
                "image/filename": f"scene_{i}".encode(),
                "image/format": b"png",
                "image/height": H,
                "image/width": W,
                "image/channels": 3,
                "image/segmentation/class/encoded": images.encode(label(i, (0, 18, 255))),
                "image/segmentation/class/format": b"png",
            } | changes
            features = {key: feature(value) for key, value in values.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def test_tensorflow_reads_our_shards(folder, tf):
    manifest = records.load_manifest(folder)
    for split in manifest.splits.values():
        raw = [r.numpy() for r in tf.data.TFRecordDataset(list(split.shards))]
        assert raw == [split.read(i) for i in range(len(split))]
        example = tf.train.Example.FromString(raw[0]).features.feature
        assert set(example) == KEYS
        assert example["image/height"].int64_list.value[:] == [H]
        assert example["image/format"].bytes_list.value[:] == [b"jpeg"]
        assert example["image/segmentation/class/label_space"].bytes_list.value[:] == [b"camvid/raw"]
        png = example["image/segmentation/class/encoded"].bytes_list.value[0]
        np.testing.assert_array_equal(tf.io.decode_png(png)[..., 0], records.decode(raw[0])[2])


def test_framing_and_examples_equal_tensorflows(tmp_path, tf):
    payloads = [b"", b"a", bytes(range(256)) * 300]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in payloads:
            writer.write(payload)
    assert (tmp_path / "theirs").read_bytes() == b"".join(tfrecord.frame(p) for p in payloads)
    values = {"b": b"\x00\xff", "a": "text", "n": -3, "big": 2**40}
    parsed = tf.train.Example.FromString(tfrecord.serialize_example(values)).features.feature
    assert parsed["b"].bytes_list.value[:] == [b"\x00\xff"] and parsed["a"].bytes_list.value[:] == [b"text"]
    assert parsed["n"].int64_list.value[:] == [-3] and parsed["big"].int64_list.value[:] == [2**40]
    assert tfrecord.serialize_example(values) == tfrecord.serialize_example(dict(reversed(values.items())))
    theirs = tf.train.Example()
    theirs.features.feature["floats"].float_list.value.extend([0.5, 2])
    theirs.features.feature["none"].int64_list.SetInParent()
    assert records.parse_example(theirs.SerializeToString()) == {"floats": [0.5, 2.0], "none": []}


def test_records_of_a_url_are_read_through_tensorflow(folder, tf):
    local = records.load_manifest(folder)
    url = records.load_manifest(f"file://{folder}")
    assert url.digest == local.digest
    assert url.split("val").shards[0] == f"file://{folder}/val-00000-of-00002.tfrecord"
    assert url.split("train").read(4) == local.split("train").read(4)


def test_a_split_lists_its_records(folder, tmp_path):
    manifest = records.load_manifest(folder)
    split = manifest.split("train")
    source = camvid.read(make_camvid(tmp_path))
    assert split.names == tuple(f"train_{i}" for i in range(5)) and len(split) == 5
    assert split.shard.tolist() == [0, 0, 1, 1, 1] and split.position.tolist() == [0, 1, 0, 1, 2]
    assert set(split.heights) == {H} and set(split.widths) == {W}
    counts = np.zeros(256, np.int64)
    for i, (name, rgb, ids) in enumerate(decoded(source, "train")):
        got = records.decode(split.read(i))
        assert got[0] == name
        np.testing.assert_array_equal(got[1], rgb)  # the JPEG's own bytes: nothing is encoded again
        np.testing.assert_array_equal(got[2], ids)
        counts += np.bincount(ids.ravel(), minlength=256)
    assert split.pixel_counts == {i: n for i, n in enumerate(counts.tolist()) if n}
    assert manifest.info == camvid.info() and manifest.label_space == "camvid/raw"
    with pytest.raises(ValueError, match="no split 'test'. Choose one of: train, val"):
        manifest.split("test")


@pytest.mark.parametrize("suffix", ["", ".tfrecord"])
def test_deeplab_records(tmp_path, tf, suffix):
    deeplab_shard(tf, tmp_path / f"train-00000-of-00002{suffix}", (0, 1))
    deeplab_shard(tf, tmp_path / f"train-00001-of-00002{suffix}", (2,))
    with pytest.raises(ValueError, match="with label_space train_ids or label_ids"):
        records.load_manifest(tmp_path)
    manifest = records.load_manifest(tmp_path, label_space="train_ids")
    split = manifest.split("train")
    assert split.names == ("scene_0", "scene_1", "scene_2") and split.position.tolist() == [0, 1, 0]
    assert split.heights.tolist() == [H] * 3 and split.widths.tolist() == [W] * 3 and split.pixel_counts == {}
    for i in range(3):
        _, rgb, ids = records.decode(split.read(i))
        np.testing.assert_array_equal(rgb, image(i))
        np.testing.assert_array_equal(ids, label(i, (0, 18, 255)))
    table = manifest.info.label_set().table  # training ids stay, 255 is void, the rest cannot be
    assert table[:19].tolist() == list(range(19)) and table[255] == 255 and set(table[19:255]) == {254}
    by_id = records.load_manifest(tmp_path, label_space="label_ids")
    assert by_id.info.label_set().table[7] == 0 and by_id.digest != manifest.digest


def test_foreign_folders_are_errors(tmp_path, tf):
    with pytest.raises(FileNotFoundError, match="no record folder"):
        records.load_manifest(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="not a finished record folder, it has no dataset.json"):
        records.load_manifest(tmp_path)
    with pytest.raises(ValueError, match="label_space must be one of train_ids, label_ids, got 'ids'"):
        records.load_manifest(tmp_path, label_space="ids")
    path = tmp_path / "train-00000-of-00001"
    path.write_bytes(b"not a record file at all, but long enough")
    with pytest.raises(ValueError, match="Record 0 of shard .*train-00000-of-00001 is corrupt .length checksum"):
        records.load_manifest(tmp_path, label_space="train_ids")
    path.write_bytes(tfrecord.frame(b"no example"))
    with pytest.raises(ValueError, match="Record 0 .* not a tf.train.Example"):
        records.load_manifest(tmp_path, label_space="train_ids")
    path.write_bytes(tfrecord.frame(tfrecord.serialize_example({"x": 1})))
    with pytest.raises(ValueError, match="lacks image/height or image/width"):
        records.load_manifest(tmp_path, label_space="train_ids")
    deeplab_shard(tf, path, (0, 1))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match="Record 1 of shard .*the file ends inside it"):
        records.load_manifest(tmp_path, label_space="train_ids")
    path.rename(tmp_path / "train-00001-of-00002")
    with pytest.raises(ValueError, match=r"shards \[0\] of split 'train' are missing"):
        records.load_manifest(tmp_path, label_space="train_ids")


def test_an_unfinished_folder_is_not_taken_for_deeplabs(copy):
    (copy / "dataset.json").unlink()
    for space in (None, "label_ids"):
        with pytest.raises(ValueError, match="not a finished record folder.*kseg prepare"):
            records.load_manifest(copy, label_space=space)


def test_a_corrupt_record_names_shard_and_position(copy):
    split = records.load_manifest(copy).split("train")
    shard = copy / "train-00001-of-00002.tfrecord"
    whole = (copy / "train-00001-of-00002.tfrecord").read_bytes()
    start = int(split.offset[3])  # the second record of the second shard
    place = "Record 1 of shard .*train-00001-of-00002.tfrecord is corrupt"
    for at, why in (
        (start + 40, "payload checksum"),
        (start + 1, "length checksum"),
        (start + 9, "length checksum"),
    ):
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=f"{place} .{why}.*Prepare the data again"):
            split.read(3)
        split.read(2)  # its neighbour is well
    for end in (start + 5, start + 40):
        shard.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=f"{place} .the file ends inside"):
            split.read(3)
    with pytest.raises(ValueError, match=f"The record at byte {start} of shard"):
        records.read_record(str(shard), start)


def test_a_damaged_folder_is_one_clear_line(copy):
    manifest = copy / "dataset.json"
    shard = copy / "val-00000-of-00002.tfrecord"
    content = json.loads(manifest.read_text())
    whole = shard.read_bytes()

    def fails(message):
        with pytest.raises(ValueError, match=message) as error:
            records.load_manifest(copy)
        assert str(manifest) in str(error.value) and "\n" not in str(error.value)

    shard.write_bytes(whole + b"x")
    fails(f"shard val-00000-of-00002.tfrecord has {len(whole) + 1} bytes instead of {len(whole)}")
    shard.unlink()
    fails("shard val-00000-of-00002.tfrecord is missing")
    shard.write_bytes(whole)
    for text, message in (
        ("", "not usable"),
        ("[1]", "not usable"),
        ("{}", "lacks 'format_version'"),
        (json.dumps(content | {"format_version": 99}), "format version is 99, this kseg reads 1"),
        (json.dumps({k: v for k, v in content.items() if k != "splits"}), "lacks 'splits'"),
    ):
        manifest.write_text(text)
        fails(message)
    manifest.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="leave label_space out"):
        records.load_manifest(copy, label_space="label_ids")
    shard.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(ValueError, match="val-00000-of-00002.tfrecord is corrupt .sha256"):
        records.load_manifest(copy).verify()


def test_decoding_what_is_no_scene():
    with pytest.raises(ValueError, match="not a tf.train.Example"):
        records.decode(b"\xff\xff")
    with pytest.raises(ValueError, match="lacks image/segmentation/class/encoded"):
        records.decode(tfrecord.serialize_example({"image/encoded": images.encode(image(0))}))
    values = {"image/filename": "x", "image/encoded": b"?", "image/segmentation/class/encoded": b"?"}
    with pytest.raises(ValueError, match="image of record x: not a PNG, JPEG, WebP, TIFF or BMP file"):
        records.decode(tfrecord.serialize_example(values))
