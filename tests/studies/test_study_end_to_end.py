"""A real study: drawn streets, two models, two seeds, a step or a few each."""

import csv
import json
import pathlib

import numpy as np
import pytest

import kseg
from kseg.data.pipeline.examples import Examples
from kseg.data.records.manifest import load_manifest
from kseg.data.records.prepare import prepare_dataset
from kseg.data.synthetic.dataset import draw_cityscapes
from kseg.io.errors import InputError
from kseg.io.files import sha256_of
from kseg.models import costs
from kseg.reports.evaluation_report import write_report
from kseg.runs.workdir import RunFolder
from kseg.studies.kept_maps import prediction_path, read_map, truth_path
from kseg.studies.run_counts import counts_path, read_counts
from kseg.studies.scoring import score_run


def check_details(counts, run, records, folder):
    """Objects are those of the report of an evaluation, the curve is history.csv's."""
    found = write_report(run / "last.keras", records, folder).objects.result()
    sums = counts.objects.sum(axis=0)  # (all and found, classes, sizes)
    assert sums[0].sum() == found["objects"] > 0
    assert sums[1].sum() == pytest.approx(found["found"] * found["objects"])
    for c, of_class in enumerate(found["per_class"].values()):
        assert [row["objects"] for row in of_class["by_size"].values()] == sums[0, c].tolist()
        assert sorted(of_class["swallowed_by"].values()) == sorted(filter(None, counts.swallowed[c].tolist()))
    history = RunFolder(run).read_history()
    assert counts.curve[:, 0].tolist() == [2 * epoch["step"] for epoch in history]
    assert counts.curve[:, 1].tolist() == [epoch["loss"] for epoch in history]


def check_maps(output, records):
    """Maps of the first seed of each model are kept, and are its predictions; the page shows them."""
    maps = output / "maps"
    assert sorted(str(path.relative_to(maps)) for path in maps.rglob("*.png")) == sorted(
        f"streets/val/{folder}/{index:05}.png"
        for index in range(4)
        for folder in ("truth", "models/unet/seed-0", "models/runet/seed-0")
    )
    model = kseg.load_model(output / "runs" / "unet" / "streets" / "seed-0" / "last.keras")
    examples = Examples(records, "val")
    for index in range(4):
        image, truth = examples[index]
        kept = read_map(truth_path(output, "streets", "val", index), 19)
        np.testing.assert_array_equal(kept, np.where(truth == 255, 19, truth))
        kept = read_map(prediction_path(output, "unet", "streets", 0, "val", index), 19)
        np.testing.assert_array_equal(kept, kseg.predict(model, image))
    gallery = json.loads((output / "report" / "study.json").read_text())["galleries"][0]
    assert gallery["photos"] and len(gallery["images"]) == 4


@pytest.mark.slow
def test_a_study_of_drawn_streets(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    draw_cityscapes(tmp_path / "source", train=4, val=4, height=48, width=64, workers=1)
    prepare_dataset("cityscapes", tmp_path / "source", tmp_path / "records", workers=1, progress=False)
    output = tmp_path / "study"
    models = {name: kseg.build_model(name, (48, 64, 3), 19, base_filters=2, depth=2) for name in ("unet", "runet")}
    of_step = {name: 3 * 2 * costs.multiply_adds(model) for name, model in models.items()}
    assert of_step["runet"] > of_step["unet"]
    plan = {
        "name": "tiny",
        "output": str(output),
        "models": [{"name": name, "options": {"base_filters": 2, "depth": 2}} for name in models],
        "data": [{"name": "streets", "data_dir": str(tmp_path / "records")}],
        "seeds": 2,
        "budget": {"kind": "multiply-adds", "value": of_step["runet"]},
        "flags": {"height": 48, "width": 64, "batch_size": 2, "keep": "last"},
    }
    found = kseg.study(plan)
    assert found.broken == (), found
    steps = {"unet": of_step["runet"] // of_step["unet"], "runet": 1}
    with open(output / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["seed"]) for row in rows] == [
        ("unet", "0"),
        ("runet", "0"),
        ("unet", "1"),
        ("runet", "1"),
    ]
    for row in rows:
        name = row["model"]
        run = output / "runs" / name / "streets" / f"seed-{row['seed']}"
        scores = json.loads((run / "scores.json").read_text())
        assert float(row["mean_iou"]) == pytest.approx(scores["jaccard"], abs=1e-12)
        assert int(row["images_seen"]) == 2 * steps[name]
        assert int(row["multiply_adds"]) == of_step[name] // 6
        assert int(row["parameters"]) == costs.parameters(models[name])
        assert row["weights_sha256"] == sha256_of(str(run / "last.keras"))
        assert float(row["cpu_seconds"]) > 1 and int(row["peak_memory"]) > 100e6  # TensorFlow alone takes more
        counts = read_counts(counts_path(output, name, "streets", row["seed"], "val"))
        matrix = np.array(scores["confusion_matrix"])
        assert (counts.counts[:, 0].sum(axis=0) == matrix.sum(axis=1)).all()
        assert (counts.counts[:, 1].sum(axis=0) == matrix.diagonal()).all()
        assert (counts.counts[:, 2].sum(axis=0) == matrix[:, :-1].sum(axis=0)).all()
        check_details(counts, run, tmp_path / "records", tmp_path / "of_run")
    check_maps(output, tmp_path / "records")
    request = {
        "workdir": str(output / "runs" / "unet" / "streets" / "seed-0"),
        "facts": {"steps": steps["unet"] + 1},
    }
    with pytest.raises(InputError, match=f"must have trained {steps['unet'] + 1} steps, its budget, but did"):
        score_run(request)
    assert len({row["weights_sha256"] for row in rows}) == 4
    assert "2 seeds per model are too few (6 are needed)" in str(found)
    before = {path: path.stat().st_mtime_ns for path in pathlib.Path(output / "runs").rglob("*")}
    assert str(kseg.study(plan)) == str(found)
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(output / "runs").rglob("*")} == before


@pytest.mark.slow
def test_a_study_that_leaves_out_a_drive_with_each_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    draw_cityscapes(tmp_path / "source", train=8, val=2, height=48, width=64, workers=1)
    prepare_dataset("cityscapes", tmp_path / "source", tmp_path / "records", workers=1, progress=False)
    names = load_manifest(tmp_path / "records").split("train").names
    drives = sorted({name.split("_")[0] for name in names})
    output = tmp_path / "study"
    plan = {
        "name": "left_out",
        "output": str(output),
        "models": [{"name": name, "options": {"base_filters": 2, "depth": 2}} for name in ("unet", "runet")],
        "data": [{"name": "streets", "data_dir": str(tmp_path / "records")}],
        "seeds": len(drives),
        "budget": {"kind": "images", "value": 4},
        "flags": {"height": 48, "width": 64, "batch_size": 2, "keep": "last"},
        "leave_out": "drive",
    }
    found = kseg.study(plan)
    assert found.broken == (), found
    for seed, drive in enumerate(drives):
        for model in ("unet", "runet"):
            counts = read_counts(counts_path(output, model, "streets", seed, "val"))
            assert counts.row["left_out"] == drive
            assert sorted(counts.names) == sorted(name for name in names if name.startswith(f"{drive}_"))
            flags = (output / "runs" / model / "streets" / f"seed-{seed}" / "flags.txt").read_text()
            assert f"records/streets/without-{seed:05}" in flags
    (section,) = found.table["sections"]
    assert section["left_out"] == drives and len(section["pairs"]) == 1
