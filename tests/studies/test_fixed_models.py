"""Models of a study that are not trained: one run without a seed, in plan, counts, statistics and report."""

import csv
import json
import pathlib
import re

import browsing
import fake_study
import numpy as np
import pytest
import tiny
from outside_files import describe, write_onnx

import kseg
from kseg.io.errors import InputError
from kseg.io.files import sha256_of
from kseg.studies import study as study_module
from kseg.studies.engines import ENGINES
from kseg.studies.run_counts import counts_path, read_counts
from kseg.studies.scoring import score_run
from kseg.studies.statistics import compare
from kseg.studies.study_plan import read_plan, run_names
from kseg.studies.verify import verify


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Trainings and scoring that only pretend; gives the file of their calls."""
    folder = tmp_path / "fake"
    folder.mkdir()
    monkeypatch.setenv("KSEG_FAKE", str(folder))
    monkeypatch.setattr(study_module, "PROGRAMS", fake_study.programs())
    monkeypatch.setitem(ENGINES, "local", fake_study.in_process)
    return folder / "calls.txt"


@pytest.fixture
def rival(tmp_path):
    """An ONNX file and its description."""
    file = write_onnx(tmp_path / "rival.onnx")
    describe(file, 'classes = ["road", "car", "sky"]\nchannels = "RGB"\nrange = "0..255"\n')
    return file


@pytest.fixture
def plan(tmp_path, records, rival):
    return {
        "name": "rivals",
        "output": str(tmp_path / "study"),
        "models": [{"name": "small"}, {"name": "rival", "file": str(rival)}, {"name": "other", "file": str(rival)}],
        "data": [{"name": "tiny", "data_dir": str(records)}],
        "seeds": 6,
        "budget": {"kind": "images", "value": 8},
    }


def test_a_fixed_model_is_scored_once_before_any_training_and_compared_rightly(fake, plan):
    found = kseg.study(plan)
    calls = fake.read_text().splitlines()
    assert calls[:3] == ["measure small", "score rival-fixed", "score other-fixed"]
    assert calls[3:5] == ["train small-0 2", "score small-0"] and len(calls) == 3 + 2 * 6
    counts = {"small": np.stack([fake_study.fake_counts("small", seed) for seed in range(6)])}
    counts |= {name: fake_study.fake_counts(name, "fixed")[None] for name in ("rival", "other")}
    drives = [f"drive{i % 12}" for i in range(24)]
    assert found.comparisons["tiny", "val"] == compare(counts, drives, unit="drives", fixed=("rival", "other"))
    (section,) = found.table["sections"]
    assert section["seeds"] == {"small": [0, 1, 2, 3, 4, 5], "rival": ["fixed"], "other": ["fixed"]}
    assert section["fixed"] == ["rival", "other"] and section["missing"] == []
    last = {frozenset((pair["first"], pair["second"])): pair for pair in section["pairs"]}
    both = last[frozenset(("rival", "other"))]
    assert both["seed_test"] is None and both["superiority"] is None and both["fixed"] == ["rival", "other"]
    assert last[frozenset(("rival", "small"))]["seed_test"]["smallest_p"] == 2 / 64
    text = str(found)
    assert "rival and other are fixed: they were not trained here and have one run each, without a seed." in text
    assert "differences between them are over drives alone" in text
    assert [row["model"] for row in found.table["costs"]] == ["small"]
    with open(pathlib.Path(plan["output"]) / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["seed"], row["parameters"]) for row in rows[:3]] == [
        ("rival", "fixed", ""),
        ("other", "fixed", ""),
        ("small", "0", "7"),
    ]
    assert verify(plan["output"]).faults == ()
    # The same again repeats nothing; what is read for a fixed model must stay.
    fake.unlink()
    kseg.study(plan)
    assert not fake.exists()
    beside = pathlib.Path(plan["models"][1]["file"] + ".toml")
    beside.write_text(beside.read_text() + "# changed\n")
    with pytest.raises(InputError, match="models, rival, file_sha256: stored"):
        kseg.study(plan)


def test_the_page_knows_which_models_were_not_trained(fake, plan, browser):
    del plan["models"][2]["file"]
    plan["models"][2]["name"] = "large"
    plan["models"].append({"name": "other", "file": plan["models"][1]["file"]})
    plan["seeds"] = 2
    fake.with_name("break-large-1").touch()
    kseg.study(plan)
    browsing.open_page(browser, pathlib.Path(plan["output"]) / "report")
    said = browser.find_element("id", "subtitle").text
    assert "2 models with 2 seeds each, trained with a budget of 8 images a run and 2 models that were not" in said
    assert browser.find_element("id", "gaps").text.startswith("1 run of 6 is not there.")
    assert "rival and other are fixed: they were not trained here" in browser.find_element("id", "meaning").text
    pairs = browser.find_elements("css selector", "#pairs-table tbody tr")
    cells = {row.find_element("css selector", "th").text: row.text for row in pairs}
    (both,) = (text for name, text in cells.items() if {"rival", "other"} <= set(re.findall(r"\w+", name)))
    assert len(cells) == 6 and both.rstrip().endswith("\u2013")  # one run each: no p by seeds
    drawn = [text.strip() for text in browsing.texts(browser, "#costs-chart .legend > *")]
    assert drawn == browsing.texts(browser, "#costs-table tbody th")
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("repair", ["another file", "left out"])
def test_a_fixed_model_that_broke_may_be_repaired(fake, plan, repair):
    """What was trained stays; a fixed model that has been scored may not change."""
    fake.with_name("break-score-other").touch()
    found = kseg.study(plan)
    assert [one["run"] for one in found.broken] == ["other/tiny/fixed"]
    fake.with_name("break-score-other").unlink()
    fake.unlink()
    if repair == "left out":
        del plan["models"][2]
        assert kseg.study(plan).broken == () and not fake.exists()
        return
    beside = pathlib.Path(plan["models"][1]["file"])
    other = write_onnx(beside.with_name("again.onnx"))
    describe(other, 'classes = ["road", "car", "sky"]\nchannels = "RGB"\nrange = "0..255"\n# repaired\n')
    plan["models"][2]["file"] = str(other)
    assert kseg.study(plan).broken == () and fake.read_text().splitlines() == ["score other-fixed"]
    plan["models"][2]["file"] = str(beside)
    with pytest.raises(InputError, match="models, other, file"):
        kseg.study(plan)


def test_one_fixed_model_is_described_in_the_singular(fake, plan):
    del plan["models"][2]
    plan["seeds"] = 2
    text = str(kseg.study(plan))
    assert "rival is fixed: it was not trained here and has one run without a seed." in text
    assert "2 seeds of small are too few (6 are needed)" in text


def test_a_seed_that_one_trained_model_lacks_is_left_out_and_fixed_models_stay(fake, plan):
    plan["seeds"] = 2
    plan["models"].append({"name": "large"})
    fake.with_name("break-large-1").touch()
    found = kseg.study(plan)
    (section,) = found.table["sections"]
    assert section["seeds"] == {"small": [0], "rival": ["fixed"], "other": ["fixed"], "large": [0]}
    assert section["missing"] == ["large/tiny/seed-1"] and section["unpaired"] == ["small/tiny/seed-1"]
    said = "1 finished run not counted above, because another model has no run of that seed: small/tiny/seed-1."
    assert said in str(found)


def test_fixed_models_are_scored_by_their_own_runtime(plan, records, rival, tmp_path):
    """The command that a study starts, as it is: every pixel of tiny's labels is right."""
    model, data, seed = run_names(read_plan(plan))[0]
    assert (model.name, seed) == ("rival", "fixed")
    job = study_module._job(tmp_path, read_plan(plan), (model, data, seed), {}, {})
    request = json.loads(job.commands[0][-1])
    assert len(job.commands) == 1 and job.name == "rival/tiny/fixed"
    score_run(request)
    found = read_counts(counts_path(tmp_path, "rival", "tiny", "fixed", "val"))
    np.testing.assert_array_equal(found.counts[:, 0], found.counts[:, 1])
    assert found.row["mean_iou"] == 1.0 and found.row["seed"] == "fixed" and found.row["cpu_seconds"] is None
    assert found.row["weights_sha256"] == sha256_of(str(rival)) and found.row["flags_sha256"] is None
    assert found.row["manifest_sha256"] == sha256_of(str(records / "dataset.json"))
    assert len(tiny.CLASSES) == found.counts.shape[2]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([{"name": "a", "file": "{rival}"}], "A study trains one model at least. Compare fixed models alone with"),
        ([{"name": "a"}, {"name": "b", "file": "no such"}], "file of model b is not there: no such"),
        ([{"name": "a"}, {"name": "b", "file": 3}], "file of model b must be the path"),
        ([{"name": "a"}, {"name": "b", "file": "{rival}", "flags": {}}], "it is not trained: flags has no effect"),
        ([{"name": "a"}, {"name": "b", "file": "{rival}", "model": "unet"}], "model has no effect"),
        ([{"name": "a"}, {"name": "b", "file": "x", "file_sha256": "1"}], "Unknown key 'file_sha256'"),
    ],
)
def test_fixed_models_that_cannot_be_are_refused(models, message, plan, rival):
    plan["models"] = [
        {key: str(rival) if value == "{rival}" else value for key, value in model.items()} for model in models
    ]
    with pytest.raises(InputError, match=message):
        read_plan(plan)


def test_studies_from_before_there_were_files_go_on(fake, plan):
    """Their study.json lacks the new keys."""
    plan["models"] = [{"name": "small"}]
    plan["seeds"] = 2
    kseg.study(plan)
    path = pathlib.Path(plan["output"]) / "study.json"
    stored = json.loads(path.read_text())
    for model in stored["plan"]["models"]:
        del model["file"], model["file_sha256"]
    path.write_text(json.dumps(stored))
    fake.unlink()
    kseg.study(plan)
    assert not fake.exists()
