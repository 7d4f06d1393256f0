"""Record folders that each leave out one drive."""

import collections

import pytest
from scenes import make_camvid

from kseg.data.pipeline.examples import Examples
from kseg.data.records.leave_out import leave_one_out
from kseg.data.records.manifest import load_manifest
from kseg.data.records.prepare import prepare_dataset
from kseg.io.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    prepare_dataset("camvid", make_camvid(root / "camvid"), root / "out", shards=2, workers=1, progress=False)
    return root / "out"


def by_name(data_dir, split):
    examples = Examples(data_dir, split)
    return {name: examples[i] for i, name in enumerate(examples.split.names)}


def test_each_folder_holds_one_group_as_val_and_the_others_as_train(folder, tmp_path):
    whole = by_name(folder, "train")
    # The last digit of a name as its group: as good as any.
    found = leave_one_out(folder, tmp_path / "out", "([0-9])$")
    expected = collections.defaultdict(list)
    for name in whole:
        expected[name[-1]].append(name)
    assert list(found) == sorted(expected) and len(found) > 1
    counts = load_manifest(folder).split("train").pixel_counts
    for group, path in found.items():
        train = by_name(path, "train")
        val = by_name(path, "val")
        assert sorted(val) == sorted(expected[group]) and sorted([*train, *val]) == sorted(whole)
        for name, example in {**train, **val}.items():
            assert all((one == other).all() for one, other in zip(example, whole[name], strict=True))
        manifest = load_manifest(path)
        manifest.verify()
        summed = collections.Counter(manifest.split("train").pixel_counts)
        summed.update(manifest.split("val").pixel_counts)
        assert {i: n for i, n in summed.items() if n} == {i: n for i, n in counts.items() if n}
        assert manifest.info == load_manifest(folder).info and manifest.drive == load_manifest(folder).drive
        assert manifest.options["left_out"] == group
    assert len({load_manifest(path).digest for path in found.values()}) == len(found)
    # Every record is stored once more, not once for each folder.
    copies = [path for path in (tmp_path / "out").rglob("*.tfrecord") if not path.is_symlink()]
    assert sum(path.stat().st_size for path in copies) == sum(
        path.stat().st_size for path in folder.glob("train-*.tfrecord")
    )


def test_the_same_call_again_writes_nothing_and_one_that_was_killed_goes_on(folder, tmp_path):
    found = leave_one_out(folder, tmp_path / "out", "([0-9])$")
    files = {path: path.lstat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if not path.is_dir()}
    assert leave_one_out(folder, tmp_path / "out", "([0-9])$") == found
    assert {path: path.lstat().st_mtime_ns for path in files} == files
    last = list(found.values())[-1]
    before = (last / "dataset.json").read_bytes()
    (last / "dataset.json").unlink()  # it is written last
    next(last.glob("train-*")).unlink()
    assert leave_one_out(folder, tmp_path / "out", "([0-9])$") == found
    assert (last / "dataset.json").read_bytes() == before
    load_manifest(last).verify()


def test_what_cannot_be_left_out_is_said(folder, tmp_path):
    with pytest.raises(InputError, match=r"leave_out needs two groups of train or more, but \(\.\)\.\*_ gives 1"):
        leave_one_out(folder, tmp_path, "(.).*_")
    (tmp_path / "foreign").mkdir()
    for path in folder.glob("*.tfrecord"):
        (tmp_path / "foreign" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"dataset\.json"):
        leave_one_out(tmp_path / "foreign", tmp_path / "out", "(.)")
