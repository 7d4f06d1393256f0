"""Files that an earlier kseg wrote are read for good: a run folder, its checkpoint, its .keras file, a record folder.

`tests/files/kseg_0_1_0` was written once, by a U-Net of two filters trained for two epochs, and is never written anew.
`expected.json` says what that kseg made of it: the scores, the labels of an image, the history of a third epoch.
"""

import csv
import io
import json
import re
import shutil

import numpy as np
import pytest
from scenes import make_cityscapes

import kseg
from kseg.data.groups import groups_of
from kseg.data.records.manifest import load_manifest
from kseg.data.records.prepare import prepare_dataset
from kseg.runs.workdir import RunFolder

SETTINGS = {
    "height": 32,
    "width": 64,
    "batch_size": 2,
    "learning_rate": 0.01,
    "lr_schedule": "poly",
    "checkpoint_every_steps": 100,
    "ema_momentum": 0.9,
    "class_weights": "median_frequency",
}
OPTIONS = {"base_filters": 2, "depth": 2}


@pytest.fixture
def files(root, tmp_path):
    """A copy, for a run that goes on writes into its folder."""
    return shutil.copytree(root / "tests" / "files" / "kseg_0_1_0", tmp_path / "files")


@pytest.fixture
def expected(files):
    return json.loads((files / "expected.json").read_text())


@pytest.mark.parametrize("name", ["run", "run/best.keras"])
def test_a_run_and_its_file_score_and_predict_as_they_did(files, expected, name):
    scores = kseg.evaluate(files / name, files / "records")
    before = np.array(expected["confusion_matrix"])
    moved = np.abs(scores.confusion_matrix - before).sum() / 2  # a tie may fall otherwise with other kernels
    assert moved <= before.sum() // 1000 and scores.images == 5
    assert scores.mean_iou == pytest.approx(
        json.loads((files / "run" / "scores.json").read_text())["mean_iou"], abs=0.005
    )
    image = np.random.default_rng(5).integers(0, 256, (32, 48, 3), np.uint8)
    labels = kseg.predict(files / name, image)
    assert np.count_nonzero(labels[::8, ::8] != np.array(expected["labels"])) <= 1


def test_records_are_read_with_their_checksums(files):
    manifest = load_manifest(files / "records")
    manifest.verify()
    assert {name: len(split) for name, split in manifest.splits.items()} == {"train": 7, "val": 5}
    assert groups_of(manifest.split("val").names, "drive", manifest.drive).names == ("val",)  # it does not say a rule
    batches = list(kseg.load_dataset(files / "records", "val"))
    assert len(batches) == 5 and batches[0][0].shape == (1, 32, 48, 3) and batches[0][1].shape == (1, 32, 48)


def test_a_label_set_of_records_has_its_name_of_today(tmp_path):
    """Its name was once that of a random seed: the old records are read, and are those that preparing would make."""
    source = make_cityscapes(tmp_path / "source")
    folder = tmp_path / "records"
    prepare_dataset("cityscapes", source, folder, workers=1, progress=False)
    table = load_manifest(folder).info.label_set("fischer2021_r2unet").table
    for name in ("dataset.json", "source.json"):
        text = (folder / name).read_text()
        assert text.count('"fischer2021_r2unet"') == 1
        (folder / name).write_text(text.replace("fischer2021_r2unet", "seed_r2unet"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    info = load_manifest(folder).info
    assert list(info.label_sets) == ["train_ids", "all_ids", "fischer2021_r2unet"]
    assert (info.label_set("fischer2021_r2unet").table == table).all()
    again = prepare_dataset("cityscapes", source, folder, workers=1, progress=False)
    assert again.info == info and before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_finished_run_says_so_and_goes_on_from_its_checkpoint(files, expected, capsys):
    records = files / "records"
    run = files / "run"
    shutil.copy(run / "best.keras", run / "last.keras")  # left out of the files to keep them small
    _, history = kseg.train("unet", records, run, model_options=OPTIONS, epochs=2, **SETTINGS)
    assert "is finished, nothing to train" in capsys.readouterr().out and len(history) == 2
    _, history = kseg.train("unet", records, run, model_options=OPTIONS, epochs=3, **SETTINGS)
    assert "Going on from step 6 of 9" in capsys.readouterr().out
    before = list(csv.DictReader(io.StringIO(expected["longer_history"])))
    assert len(history) == len(before) == 3
    for row, other in zip(history, before, strict=True):
        assert row["loss"] == pytest.approx(float(other["loss"]), rel=0.02)
        assert row["val_mean_iou"] == pytest.approx(float(other["val_mean_iou"]), abs=0.02)


OLD_OPTIONS = {"backbone": "vgg16", "base_filters": 2, "dropout": 0.0}
NEW_OPTIONS = {"encoder": "vgg16", "base_filters": 2, "dropout": 0.0}


def test_a_run_of_deeplabv3_goes_on_whatever_its_option_is_called(files, tmp_path, capsys):
    """Its `encoder` was once its `backbone`: in flags.txt, in the command that is given again, and in a new run's."""
    settings = {"height": 32, "width": 64, "batch_size": 2, "checkpoint_every_steps": 100}
    run = tmp_path / "run"
    kseg.train("deeplabv3", files / "records", run, model_options=NEW_OPTIONS, epochs=1, **settings)
    flags = run / "flags.txt"
    written = flags.read_text()
    old = json.dumps(OLD_OPTIONS, sort_keys=True)
    assert f"--model_options={json.dumps(NEW_OPTIONS, sort_keys=True)}\n" in written
    flags.write_text(re.sub("--model_options=.*", f"--model_options={old}", written))
    for options in (OLD_OPTIONS, NEW_OPTIONS):
        capsys.readouterr()
        kseg.train("deeplabv3", files / "records", run, model_options=options, epochs=1, **settings)
        assert "is finished, nothing to train" in capsys.readouterr().out
    with pytest.raises(kseg.InputError, match="  encoder \\(of model_options\\): stored 'vgg16', now 'resnet50'"):
        other = {**OLD_OPTIONS, "backbone": "resnet50"}
        kseg.train("deeplabv3", files / "records", run, model_options=other, epochs=2, **settings)
    _, history = kseg.train("deeplabv3", files / "records", run, model_options=OLD_OPTIONS, epochs=2, **settings)
    assert "Going on from step 3 of 6" in capsys.readouterr().out and len(history) == 2
    assert json.loads(RunFolder(run).stored()["model_options"]) == NEW_OPTIONS
    assert "backbone" not in flags.read_text()  # written anew, by the names of today


def test_options_of_earlier_names_build_what_they_built():
    model = kseg.build_model("deeplabv3", (32, 32, 3), 3, **OLD_OPTIONS)
    assert model.weights[0].path.startswith("block1_conv1")
    with pytest.raises(kseg.InputError, match="'deeplabv3' has no option backbone. Its options are 'encoder',"):
        kseg.build_model("deeplabv3", (32, 32, 3), 3, backbone="vgg16", encoder="vgg16")
    with pytest.raises(kseg.InputError, match="'fpn' has no option backbone"):
        kseg.build_model("fpn", (32, 32, 3), 3, backbone="vgg16")


def test_a_damaged_record_of_options_is_shown_as_it_is(files):
    flags = files / "run" / "flags.txt"
    written = flags.read_text()
    for damaged in ("{", "[1]", "3"):
        flags.write_text(re.sub("--model_options=.*", f"--model_options={damaged}", written))
        assert RunFolder(files / "run").stored()["model_options"] == damaged
