"""The model card of an export: the run's, and what the report of the file says."""

import json
import re
import shutil
import zipfile

import numpy as np
import pytest
import tiny
import yaml
from test_exports import SUFFIXES, smooth

import kseg
from kseg.data.pipeline.examples import Examples
from kseg.data.records.manifest import load_manifest
from kseg.export import EXPORTERS, export_model
from kseg.export.export_card import card_of_run
from kseg.export.exported_facts import carried
from kseg.export.proof_images import ProofImages
from kseg.io.text import bytes_text
from kseg.metrics import Scores
from kseg.runs.model_card import MARK, run_card

STORED = {"model": "unet", "epochs": "7", "learning_rate": "0.5", "data_dir": "/home/me/secret/records"}
COSTS = {"parameters": 1234567, "multiply_adds": 7654321, "height": 32, "width": 64}


@pytest.fixture(scope="module")
def run(records, tmp_path_factory):
    """A finished run with its card, but without a training."""
    folder = tmp_path_factory.mktemp("run")
    train, val = (Examples(str(records), split) for split in ("train", "val"))
    model = tiny.brightness_model((32, 48, 3))
    model.layers[1].label_set = carried(train)
    model.save(folder / "best.keras")
    model.save(folder / "last.keras")
    matrix = np.array([[90, 10, 0, 0], [4, 1, 5, 0], [0, 0, 0, 0]])
    scores = Scores.from_confusion_matrix(matrix, ("road", "car", "sky"), 5)
    scores = Scores(**{**vars(scores), "split": "val"})
    (folder / "flags.txt").write_text("--model=unet\n")
    scores.to_json(folder / "scores.json")
    (folder / "README.md").write_text(run_card(STORED, train, val, scores, COSTS))
    return folder


def texts_in(path):
    """{name: text} inside an export."""
    if path.is_dir():
        return {file.name: file.read_text() for file in path.iterdir() if file.suffix in (".md", ".json")}
    if path.suffix == ".onnx":
        import onnx

        return {prop.key: prop.value for prop in onnx.load(str(path)).metadata_props}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.mark.parametrize("format", SUFFIXES)
def test_every_export_of_a_run_carries_the_runs_card_and_its_own_facts(format, run, records, tmp_path):
    path = tmp_path / f"model{SUFFIXES[format]}"
    export_model.export_model(run, path, format=format, data_dir=records, quick=True)
    texts = texts_in(path)
    assert set(texts) == {"README.md", "classes.json", "report.json"}
    card, report = texts["README.md"], json.loads(texts["report.json"])
    block = yaml.safe_load(card.split("---\n")[1])
    assert block["library_name"] == "kseg" and block["pipeline_tag"] == "image-segmentation"
    assert {"kseg", {"savedmodel": "tf-keras", "onnx": "onnx", "litert": "tflite"}[format]} < set(block["tags"])
    digest = Examples(str(records), "val").manifest.digest
    assert "model-index" not in block  # the run's scores are not the file's, which nobody has scored
    assert MARK in card and card.count("\n## Use\n") == 1 and "PATH_OF_THIS_FOLDER" not in card
    for heading in ("Export", "Scores", "Data", "Recipe", "Cost", "Limits"):
        assert card.count(f"\n## {heading}\n") == 1
    kind = EXPORTERS[format].kind
    assert f"| Format | {kind} |" in card and "| Numbers | float32 |" in card
    assert f"| Size | {bytes_text(report['bytes'])} |" in card
    assert f"| {report['agreement']['pixels']:.2%} (at least 99.9% must) |" in card
    assert (
        f"sha256 of its manifest: `{digest}`" in card and "--learning_rate=0.5" in card and "protocol standard" in card
    )
    assert "1,234,567 parameters" in card and "images of the split `val`" in card and "secret" not in card


def test_the_scores_of_the_file_itself_are_those_of_the_hub(run, records, tmp_path):
    """The whole proof scores the file: the run's own scores are of Keras."""
    path = export_model.export_model(run, tmp_path / "model.onnx", format="onnx", data_dir=records, quantize="float16")
    texts = texts_in(path)
    card, report = texts["README.md"], json.loads(texts["report.json"])
    result = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"][0]
    metrics = result["metrics"]
    assert result["dataset"]["revision"] == Examples(str(records), "val").manifest.digest
    assert [row["type"] for row in metrics] == ["mean_iou"]
    assert metrics[0]["value"] == pytest.approx(report["scores"]["mean_iou"], abs=5e-5)
    assert metrics[0]["value"] > 0.9  # the run's card says .3051
    assert f"| {report['scores']['mean_iou']:.4f} (Keras: {report['scores']['keras_mean_iou']:.4f}) |" in card
    assert "weights of 16 bits" in card and "5 images of split `val`" in card and "ms (median)" in card


def test_a_score_on_other_records_is_published_with_them(run, records, tmp_path):
    """The run's records and these have the same classes; only their digest tells them apart."""
    other = tmp_path / "other"
    shutil.copytree(records, other)
    manifest = json.loads((other / "dataset.json").read_text())
    manifest["drive"] = "(a).*"
    (other / "dataset.json").write_text(json.dumps(manifest))
    digest = Examples(str(other), "val").manifest.digest
    assert digest != Examples(str(records), "val").manifest.digest
    with pytest.warns(UserWarning, match="was trained on other records than"):
        path = export_model.export_model(run, tmp_path / "model.onnx", format="onnx", data_dir=other)
    texts = texts_in(path)
    report = json.loads(texts["report.json"])
    result = yaml.safe_load(texts["README.md"].split("---\n")[1])["model-index"][0]["results"][0]
    assert result["dataset"]["revision"] == report["scores"]["records"] == digest
    assert result["dataset"]["split"] == "val"


def test_a_model_without_a_run_has_a_card_that_says_so(tmp_path):
    model = tiny.brightness_model()
    images = ProofImages("2 test images", [(f"image {i}", image) for i, image in enumerate(smooth(2))])
    kseg.export_saved_model(model, tmp_path / "out", label_set=tiny.LABELS, images=images)
    card = (tmp_path / "out" / "README.md").read_text()
    block = yaml.safe_load(card.split("---\n")[1])
    assert block["library_name"] == "kseg" and "model-index" not in block
    assert "into 3 classes: road, car, sky" in card and "No run says how it was trained" in card
    assert "| Compared with Keras on | 2 test images |" in card


def test_which_run_a_card_is_of(run, tmp_path):
    card = (run / "README.md").read_text()
    assert card_of_run(run) == card_of_run(run / "best.keras") == card
    assert card_of_run(run / "last.keras") is None  # not the weights that were scored
    assert card_of_run(None) is None
    for name in ("flags.txt", "best.keras"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "README.md").write_text(card)
    assert card_of_run(tmp_path) is None  # the run goes on: it has no scores
    images = ProofImages("2 test images", [(f"image {i}", image) for i, image in enumerate(smooth(2))])
    with pytest.warns(UserWarning, match="has not finished: its model is as training left it"):
        kseg.export_saved_model(tmp_path / "best.keras", tmp_path / "out", images=images)
    assert "Its run had not finished and was not scored." in (tmp_path / "out" / "README.md").read_text()
    (tmp_path / "scores.json").write_text("{}")
    assert card_of_run(tmp_path) == card
    (tmp_path / "README.md").write_text(card.replace(MARK, ""))
    assert card_of_run(tmp_path) is None  # the user's own


def test_a_calibrated_model_carries_the_card_of_its_run_and_its_temperature(run, records, tmp_path, call_script):
    model = tiny.brightness_model((32, 48, 3))
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, bias + np.array([0, -12, -12], "float32")])  # some labels are wrong
    model.layers[1].label_set = carried(Examples(str(records), "train"))
    shutil.copytree(run, tmp_path / "run")
    model.save(tmp_path / "run" / "best.keras")
    for source, output in (("run", "once.keras"), ("once.keras", "twice.keras")):
        flags = (f"--model={tmp_path / source}", f"--data_dir={records}", f"--output={tmp_path / output}")
        code, out, error = call_script("calibrate", *flags)
        assert code == 0, error
        temperature = re.search(r"temperature ([0-9.]+)", out)[1]
        own = (run / "README.md").read_text()
        card = card_of_run(tmp_path / output)
        added = card.split("## Calibration\n")[1].partition("\n## Limits")[0]
        assert card.replace(f"## Calibration\n{added}\n", "") == own
        assert f"divided by the temperature {temperature}. " in added
        assert f"`{load_manifest(records).digest}`" in added
    kseg.load_model(tmp_path / "twice.keras")
    export_model.export_model(tmp_path / "twice.keras", tmp_path / "out", data_dir=records, quick=True)
    exported = (tmp_path / "out" / "README.md").read_text()
    assert f"## Calibration\n{added}\n## Limits" in exported and "## Export" in exported
