"""Preparing record folders: problems together, nothing half, the same bytes however the work is cut."""

import io
import multiprocessing
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tiny
from PIL import Image
from scenes import (
    CLASSES,
    H,
    W,
    image,
    label,
    make_camvid,
    make_cityscapes,
    make_folder,
    save,
    zip_cityscapes,
)

from kseg.data.checks.record_faults import check_records, mistaken_void
from kseg.data.datasets import image_folders as folder
from kseg.data.records import manifest as records
from kseg.data.records.prepare import prepare_dataset
from kseg.io import tfrecord
from kseg.io.errors import InputError
from kseg.io.parallel import Workers


def prepare(dataset, source, output, **options):
    return prepare_dataset(dataset, source, output, **({"workers": 1, "progress": False} | options))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_problem_is_reported_together(tmp_path):
    root = make_camvid(tmp_path / "camvid", train=8, val=3)
    images = root / "train" / "images"
    labels = root / "train" / "labels"
    (labels / "train_0.png").unlink()
    (images / "train_1.jpg").unlink()
    for kind, file in ((images, "val_0.jpg"), (labels, "val_0.png")):
        (kind / file).write_bytes((root / "val" / kind.name / file).read_bytes())
    jpeg = (images / "train_2.jpg").read_bytes()
    png = (labels / "train_3.png").read_bytes()
    (images / "train_2.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (labels / "train_3.png").write_bytes(png[:-20])
    (images / "train_4.jpg").write_text("<html>404</html>")
    save(labels / "train_4.png", np.full((H, W), 40, np.uint8))  # the image's fault does not hide the label's
    save(labels / "train_5.png", label(0, range(12), (H, W + 1)))
    ids = label(6, range(12))
    ids[0, :3] = 12
    ids[1, 0] = 200
    save(labels / "train_6.png", ids)
    save(labels / "train_7.png", image(7))
    (root / "val/images/val_1.jpg").write_bytes(b"")
    with pytest.raises(ValueError) as error:
        prepare("camvid", root, tmp_path / "out", workers=2)
    patterns = [
        rf"9 problems in {re.escape(str(root))}:",
        r"train: image without label: train/images/train_0.jpg",
        r"train: label without image: train/labels/train_1.png",
        r"image in 2 splits \(train, val\): val_0; leave it out of all but one",
        r"train/images/train_2.jpg: truncated or damaged \(.*\) \(and 1 more like it\)",
        r"train/images/train_4.jpg: not a PNG, JPEG, WebP, TIFF or BMP file \(16 bytes\)",
        rf"train/labels/train_4.png: ids that camvid does not have: 40 in {H * W} pixels \(and 1 more like it\)",
        rf"train/images/train_5.jpg: sizes differ: image {W}x{H}, label {W + 1}x{H}",
        r"train/labels/train_7.png: labels must be 8-bit ids, got mode RGB; .*",
        r"val/images/val_1.jpg: empty \(0 bytes\)",
    ]
    lines = str(error.value).split("\n")
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    assert not (tmp_path / "out").exists()


def test_unknown_colours_and_a_damaged_zip_member_are_problems(tmp_path):
    root = make_folder(tmp_path / "own", classes={**CLASSES, "labels": "color"}, splits=("train",))
    for i in range(2):
        save(root / f"train/labels/train{i}.png", np.full((H, W, 3), (0, i, 255), np.uint8))
    message = rf"1 problem in .*\n.*train1.png: colours .* \(0, 1, 255\) in {H * W} pixels"
    with pytest.raises(ValueError, match=message):
        prepare("folder", root, tmp_path / "out")
    unpacked = make_cityscapes(tmp_path / "city")
    zips = zip_cityscapes(unpacked, tmp_path / "zips")
    path = zips / "gtFine_trainvaltest.zip"
    name = "gtFine/train/zurich/zurich_000002_000019_gtFine_labelIds.png"
    member = (unpacked / name).read_bytes()  # stored uncompressed, so it can be found and hurt
    path.write_bytes(path.read_bytes().replace(member, member[:60] + b"\x00\x01" + member[62:]))
    with pytest.raises(ValueError, match=f"1 problem in .*\n.*zip:{name}: damaged in the zip .Bad CRC-32"):
        prepare("cityscapes", zips, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_split_is_a_problem(tmp_path):
    root = make_camvid(tmp_path / "camvid", train=1, val=1)
    for file in ("images/val_0.jpg", "labels/val_0.png"):
        (root / "val" / file).unlink()
    with pytest.raises(ValueError, match="split val has no image with a label"):
        prepare("camvid", root, tmp_path / "out")


def test_cityscapes_stores_the_files_own_bytes(tmp_path):
    unpacked = make_cityscapes(tmp_path / "city")
    manifest = prepare("cityscapes", unpacked, tmp_path / "out")
    example = tfrecord.parse_example(manifest.split("val").read(0))
    name = "lindau_000001_000019"
    folder = unpacked / "gtFine/val/lindau"
    assert example["image/filename"] == name.encode()
    assert example["image/encoded"] == (unpacked / f"leftImg8bit/val/lindau/{name}_leftImg8bit.png").read_bytes()
    labels = "image/segmentation/class/encoded"
    instances = "image/segmentation/instance/encoded"
    assert example[labels] == (folder / f"{name}_gtFine_labelIds.png").read_bytes()
    assert example[instances] == (folder / f"{name}_gtFine_instanceIds.png").read_bytes()
    assert example["image/segmentation/class/label_space"] == b"cityscapes/raw"
    assert example["image/segmentation/instance/format"] == b"png"
    zips = zip_cityscapes(unpacked, tmp_path / "zips")
    again = prepare("cityscapes", zips, tmp_path / "from_zips")
    assert again.digest == manifest.digest and again.checksums.keys() != manifest.checksums.keys()
    assert list(again.checksums.values()) == list(manifest.checksums.values())


def test_store_size_is_for_training_only(tmp_path):
    root = make_cityscapes(tmp_path / "city")
    manifest = prepare("cityscapes", root, tmp_path / "out", store_size=(8, 12), image_format="jpeg")
    train = manifest.split("train")
    val = manifest.split("val")
    assert set(train.heights) == {8} and set(train.widths) == {12}
    assert set(val.heights) == {H} and set(val.widths) == {W}
    example = tfrecord.parse_example(train.read(0))
    _, rgb, ids = records.decode(train.read(0))
    raw = label(1, range(34))  # aachen_000001 is the first in file-name order
    # half the size: nearest takes the pixel at the centre (2i + 1), of labels and instances alike
    np.testing.assert_array_equal(ids, raw[1::2, 1::2])
    stored = Image.open(io.BytesIO(example["image/segmentation/instance/encoded"]))
    np.testing.assert_array_equal(np.asarray(stored), ids.astype(int) * 1000)
    assert rgb.shape == (8, 12, 3) and example["image/format"] == b"jpeg"
    # antialiased: the mean of 384 random values over twice-reduced pixels stays, their spread shrinks
    assert abs(rgb.mean() - image(1).mean()) < 3 and rgb.std() < 0.8 * image(1).std()
    assert sum(train.pixel_counts.values()) == 3 * 8 * 12 and sum(val.pixel_counts.values()) == 2 * H * W


def test_processes_and_shards_change_no_record(tmp_path):
    root = make_camvid(tmp_path / "camvid")
    one = prepare("camvid", root, tmp_path / "one", shards=3)
    two = prepare("camvid", root, tmp_path / "two", shards=3, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    many = prepare("camvid", root, tmp_path / "many", shards=50).split("train")
    assert len(many.shards) == 5  # at most one a frame
    assert [many.read(i) for i in range(5)] == [one.split("train").read(i) for i in range(5)]
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == sorted(
        ["dataset.json", "source.json"]
        + [f"train-{i:05}-of-00003.tfrecord" for i in range(3)]
        + [f"val-{i:05}-of-00002.tfrecord" for i in range(2)]
    )
    assert two.split("train").shard.tolist() == [0, 1, 1, 2, 2]


def test_bad_options_are_errors_before_anything_is_read(tmp_path):
    for options, message in (
        ({"dataset": "photos"}, "no dataset 'photos'. Choose one of: cityscapes, camvid, "),
        (
            {"dataset": "foldr"},
            r"camvid, folder\. Did you mean folder\? A command draws synthetic streets: kseg prepare",
        ),
        ({"dataset": "synthetic"}, r"camvid, folder\. A command draws .*: kseg prepare --dataset=synthetic --output="),
        ({"store_size": (0, 4)}, "a height and a width in pixels"),
        ({"store_size": (8,)}, "a height and a width in pixels"),
        ({"image_format": "bmp"}, '"png" or "jpeg"'),
        ({"shards": 0}, "shards must be a whole number of at least 1, got 0"),
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(options.pop("dataset", "camvid"), tmp_path / "nowhere", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_script_prepares_with_several_processes(tmp_path, call_script):
    source = make_camvid(tmp_path / "camvid")
    paths = ("--dataset=camvid", f"--source={source}", f"--output={tmp_path / 'out'}")
    code, out, error = call_script("prepare_data", *paths, "--workers=2", "--shards=2")
    assert code == 0, error
    assert "camvid, 5 train, 2 val" in out and "write" in error  # the bar
    assert len(records.load_manifest(tmp_path / "out").split("train")) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--dataset and --output must be given"),
        (("--dataset=camvid", "--output=x"), "--source must be given"),
        (("--dataset=camvid", "--output=x", "--source=nowhere"), "There is no source folder"),
        (("--dataset=camvid", "--output=x", "--source=y", "--store_width=3"), "go together"),
        (("--dataset=camvid", "--output=x", "--source=y", "--workers=0"), "--workers"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(call_script, arguments, message):
    code, out, error = call_script("prepare_data", *arguments)
    assert code == 2 and message in error
    assert out == "" and error.count("\n") == 1


SCRIPT = """
print("started")
import multiprocessing
multiprocessing.set_start_method("fork")  # the caller's choice stays the caller's
import kseg
from kseg.data.checks.record_faults import check_records
from kseg.data.synthetic.dataset import draw_cityscapes
manifest = kseg.prepare_dataset("camvid", {source!r}, {output!r}, workers=2, progress=False)
checked = check_records(manifest, workers=2)
drawn = draw_cityscapes({streets!r}, train=2, val=1, height=64, width=128, workers=2)
print(len(manifest.split("train")), len(checked[0]["train"].names), drawn, __name__, multiprocessing.get_start_method())
"""


@pytest.mark.parametrize("road", ["file", "stdin", "-c"])
def test_a_script_without_a_main_guard(tmp_path, root, road):
    """Its workers do not run it again: it says "started" once. 40 images make two workers of the check."""
    source = make_camvid(tmp_path / "camvid", train=38, val=2)
    text = SCRIPT.format(source=str(source), output=str(tmp_path / "out"), streets=str(tmp_path / "streets"))
    (tmp_path / "mine.py").write_text(text)
    arguments = {"file": [str(tmp_path / "mine.py")], "stdin": ["-"], "-c": ["-c", text]}[road]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, *arguments], input=text, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["started", "38 38 3 __main__ fork"] and done.stderr == ""
    one = prepare("camvid", source, tmp_path / "one")
    assert one.digest == records.load_manifest(tmp_path / "out").digest


def _process(source, item):
    return os.getpid()


def test_the_work_is_done_in_other_processes():
    with Workers(None, 2, progress=False) as pool:
        assert os.getpid() not in set(pool.map(_process, range(40), "work"))
    with Workers(None, 1, progress=False) as pool:
        assert set(pool.map(_process, range(40), "work")) == {os.getpid()}


@pytest.mark.parametrize("cause", ["no semaphores", "a worker of another pool"])
def test_where_no_process_can_be_started_this_one_does_the_work(monkeypatch, capsys, cause):
    def missing(*arguments):
        raise OSError(38, "Function not implemented")

    if cause == "no semaphores":
        monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", missing)
    else:
        monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with Workers(None, 4, progress=False) as pool:
        assert set(pool.map(_process, range(3), "work")) == {os.getpid()}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("No other process can be started (") and line.endswith("so this one does all the work.")


def test_a_mask_of_0_and_255_is_asked_about(tmp_path, capsys):
    """As drawing programs save it: 255 is void by default, so the objects would be ignored."""
    classes = {"classes": [{"id": 0, "name": "background"}, {"id": 1, "name": "road"}]}
    root = make_folder(tmp_path / "own", classes=classes)
    for path in sorted(root.glob("*/labels/*.png")):
        save(path, label(1, (0, 255)))
    prepare_dataset("folder", root, tmp_path / "out", workers=1)
    said = capsys.readouterr().out
    question = ": 255 is void here; did you mean class 1 (road), which no pixel has? Then give that class id 255"
    assert [f"WARNING: {split}{question}" in said for split in ("train", "val")] == [True, True]
    problems, warnings = check_records(records.load_manifest(tmp_path / "out"))[1:]
    assert problems == [] and [w for w in warnings if w.startswith(f"train{question}")]
    for ids, asked in (((0, 1, 255), False), ((0, 1), False), ((0,), False), ((1, 255), True)):
        found = mistaken_void("train", dict.fromkeys(ids, 5), records.load_manifest(tmp_path / "out").info)
        assert bool(found) is asked, ids
    assert "class 0 (background)" in found[0]
    classes["classes"][1]["id"] = 255
    info = folder.read(make_folder(tmp_path / "meant", classes=classes)).info
    assert mistaken_void("train", {0: 5, 255: 5}, info) == []
    assert mistaken_void("train", {3: 5, 255: 5}, folder.read(make_folder(tmp_path / "two")).info) != []
    more = {"classes": [{"id": i, "name": str(i)} for i in range(3)]}
    assert mistaken_void("train", {0: 5, 1: 5, 255: 5}, folder.read(make_folder(tmp_path / "more", more)).info) == []


def test_labels_of_void_alone_are_asked_about(tmp_path, capsys):
    """Not those of test: Cityscapes' authors keep the labels of test, and its files have void alone."""
    root = make_folder(tmp_path / "own")
    for path in sorted(root.glob("*/labels/*.png")):
        save(path, label(1, (255,)))
    prepare_dataset("folder", root, tmp_path / "out", workers=1)
    said = capsys.readouterr().out
    assert "Void, so neither learnt nor scored: sky (id 9)." in said
    for split in ("train", "val"):
        assert f"WARNING: 100% of the pixels of {split} belong to no class" in said


@pytest.mark.parametrize("place", ["", "records", "train/images"])
def test_records_lie_outside_of_their_source(place, tmp_path):
    root = tiny.write_folder(tmp_path / "mine")
    before = sorted(root.rglob("*"))
    with pytest.raises(InputError, match="lies in the input .*mine"):
        prepare_dataset("folder", root, root / place, progress=False)
    assert sorted(root.rglob("*")) == before
