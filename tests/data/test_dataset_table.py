"""A dataset is one entry of DATASETS: what is added there is prepared, asked for and a choice of the flags."""

import runpy

import pytest
from scenes import H, W, make_camvid

import kseg
from kseg.data.datasets import DATASETS, Dataset, camvid
from kseg.data.records.ensure import ensure_records


def read_sketches(folder):
    """A reader as one writes it: here CamVid's folders under another roof."""
    return camvid.read(f"{folder}/drawn")


@pytest.fixture
def sketches(monkeypatch):
    monkeypatch.setitem(DATASETS, "sketches", Dataset(f"{__name__}:read_sketches", "sketches.zip from the attic"))


def test_a_new_dataset_is_prepared_and_read(sketches, tmp_path):
    make_camvid(tmp_path / "drawn")  # five frames to train, two to score
    records = tmp_path / "records"
    with pytest.raises(
        FileNotFoundError, match=r"Put into one folder: sketches.zip from the attic\.\n(.*\n)*.*--dataset=sketches "
    ):
        ensure_records("sketches", records)
    manifest = kseg.prepare_dataset("sketches", tmp_path, records, workers=1, progress=False)
    assert {name: len(split) for name, split in manifest.splits.items()} == {"train": 5, "val": 2}
    assert manifest.options["dataset"] == "sketches"
    ensure_records("sketches", records)  # nothing is missing any more
    images, labels = next(iter(kseg.load_dataset(records, "val")))
    assert images.shape == (1, H, W, 3) and labels.shape == (1, H, W)
    known = ", ".join(name for name in DATASETS if name != "synthetic")  # streets are drawn in Cityscapes' layout
    assert known.startswith("cityscapes, camvid, ") and known.endswith(", sketches")
    with pytest.raises(ValueError, match=f"no dataset 'photos'. Choose one of: {known}"):
        kseg.prepare_dataset("photos", tmp_path, records)


@pytest.mark.parametrize("command", ["prepare_command", "train_command"])
def test_a_new_dataset_is_a_choice_of_the_flag(sketches, command):
    flag = runpy.run_module(f"kseg.commands.{command}")["FLAGS"]["dataset"]
    assert flag.parser.enum_values == list(DATASETS) and "sketches" in DATASETS


def test_every_reader_is_there_and_every_download_is_told(tmp_path):
    for name, dataset in DATASETS.items():
        with pytest.raises(FileNotFoundError, match="There is no source folder"):
            dataset.read(tmp_path / "nothing")
        if name != "synthetic":  # drawn, where others are downloaded
            with pytest.raises(FileNotFoundError) as caught:
                ensure_records(name, tmp_path / "nothing")
            assert dataset.download in str(caught.value) and dataset.download
