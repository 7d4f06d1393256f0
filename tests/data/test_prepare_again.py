"""Preparing again: after a kill, after a failure, when finished, with other options, over damage."""

import signal
import subprocess
import sys

import pytest
from scenes import label, make_camvid, save
from test_prepare import content, prepare

from kseg.data.records import manifest

KILL = """
import os, signal, sys
from kseg.data.records import prepare, shards as writer
target, name, count = {"prepare": prepare, "writer": writer}[sys.argv[3]], sys.argv[4], int(sys.argv[5])
inner, calls = getattr(target, name), []
def dying(*args):
    calls.append(args)
    if len(calls) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(*args)
setattr(target, name, dying)
prepare.prepare_dataset("camvid", sys.argv[1], sys.argv[2], shards=2, workers=1, progress=False)
"""


@pytest.mark.parametrize(
    ("module", "name", "count", "finished"),
    [
        ("writer", "frame", 1, 0),  # in the first shard
        ("writer", "frame", 4, 1),  # in the second
        ("writer", "write_atomic", 2, 1),  # the second shard has its name, but not its sidecar
        ("prepare", "write_atomic", 2, 4),  # all shards written, dataset.json not (the first is source.json)
    ],
)
def test_killed_anywhere_and_run_again(tmp_path, module, name, count, finished):
    root = make_camvid(tmp_path / "camvid")
    fresh = tmp_path / "fresh"
    killed = tmp_path / "killed"
    prepare("camvid", root, fresh, shards=2)
    command = [sys.executable, "-c", KILL, str(root), str(killed), module, name, str(count)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert not (killed / "dataset.json").exists()
    with pytest.raises(ValueError, match="not a finished record folder"):
        manifest.load_manifest(killed)
    for path in killed.glob("*.tfrecord"):  # a final name always holds a whole shard
        assert path.read_bytes() == (fresh / path.name).read_bytes()
    kept = [killed / p.name.removesuffix(".stats.json") for p in killed.glob("*.stats.json")]
    assert len(kept) == finished
    before = {path: path.stat().st_ino for path in kept}
    prepare("camvid", root, killed, shards=2)
    assert content(killed) == content(fresh)
    assert {path: path.stat().st_ino for path in kept} == before  # skipped, not written again


def test_an_interrupted_run_of_other_options_leaves_nothing_behind(tmp_path):
    root = make_camvid(tmp_path / "camvid")
    command = [sys.executable, "-c", KILL, str(root), str(tmp_path / "out"), "writer", "frame", "4"]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    prepare("camvid", root, tmp_path / "out", shards=1)
    prepare("camvid", root, tmp_path / "fresh", shards=1)
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


def test_a_failed_write_leaves_no_file_under_a_shards_name(tmp_path, monkeypatch):
    root = make_camvid(tmp_path / "camvid")

    def full(framed):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kseg.data.records.shards.frame", full)
    with pytest.raises(OSError, match="No space left"):
        prepare("camvid", root, tmp_path / "out")
    assert sorted(content(tmp_path / "out")) == ["source.json"]


def test_a_second_run_does_nothing_and_says_so(tmp_path, capsys):
    root = make_camvid(tmp_path / "camvid")
    out = tmp_path / "out"
    first = prepare("camvid", root, out)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    again = prepare("camvid", root, out, progress=True)
    assert again.digest == first.digest
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert "already prepared" in capsys.readouterr().out


def test_a_finished_folder_of_another_origin_is_an_error_that_says_what_differs(tmp_path):
    root = make_camvid(tmp_path / "camvid")
    out = tmp_path / "out"
    prepare("camvid", root, out)
    before = content(out)
    with pytest.raises(ValueError, match="image_format was None, now png. Choose another folder or delete it"):
        prepare("camvid", root, out, image_format="png")
    with pytest.raises(ValueError, match=r"store_size was None, now \[8, 8\]"):
        prepare("camvid", root, out, store_size=(8, 8))
    save(root / "val/labels/val_1.png", label(77, range(12)))
    with pytest.raises(ValueError, match="the source files of split val differ"):
        prepare("camvid", root, out)
    assert content(out) == before
    (out / "source.json").unlink()
    with pytest.raises(ValueError, match="holds records from another source: dataset.json."):
        prepare("camvid", root, out)
    foreign = tmp_path / "deeplab"
    foreign.mkdir()
    (foreign / "train-00000-of-00001").write_bytes(b"somebody's work")
    with pytest.raises(ValueError, match="another source: train-00000-of-00001."):
        prepare("camvid", root, foreign)
    assert content(foreign) == {"train-00000-of-00001": b"somebody's work"}
    (foreign / "train-00000-of-00001").rename(foreign / "photo.jpg")
    with pytest.raises(ValueError, match="must be a new or empty folder, but holds photo.jpg"):
        prepare("camvid", root, foreign)
    assert list(content(foreign)) == ["photo.jpg"]


@pytest.mark.parametrize("damage", ["delete", "change"])
def test_a_damaged_shard_is_prepared_again(tmp_path, damage):
    root = make_camvid(tmp_path / "camvid")
    out = tmp_path / "out"
    prepare("camvid", root, out)
    before = content(out)
    shard = out / "val-00000-of-00001.tfrecord"
    if damage == "delete":
        shard.unlink()
    else:
        data = bytearray(shard.read_bytes())
        data[100] ^= 1
        shard.write_bytes(data)
    prepare("camvid", root, out)
    assert content(out) == before
