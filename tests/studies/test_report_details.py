"""What the report says beyond mean IoU: against naive sums, and what it says where something is missing."""

import itertools
import json
import types

import numpy as np
import pytest
from drawn_study import CLASSES, GROUPS, IMAGES, NAMES, write_study
from scipy import stats

from kseg.io.errors import InputError
from kseg.studies.report_details import Scored, found_share, objects_table
from kseg.studies.run_counts import counts_path, read_counts
from kseg.studies.study_report import report

LEVELS = {"good_model": 0.9, "middle": 0.7, "other_middle": 0.69, "poor": 0.4}
SEEDS = 6
DRIVES = np.array([name[:7] for name in NAMES])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(folder, report) of four models, all of whose runs are there."""
    output = tmp_path_factory.mktemp("drawn")
    write_study(output, LEVELS, SEEDS)
    return output, report(output)


@pytest.fixture(scope="module")
def section(study):
    (found,) = study[1].table["sections"]
    return found


def runs_of(output, model):
    return [read_counts(counts_path(output, model, "drawn", seed, "val")) for seed in range(SEEDS)]


def test_iou_of_each_class_is_the_mean_over_the_runs(study, section):
    assert [row["class"] for row in section["per_class"]] == list(CLASSES)
    for row, of_model in itertools.product(section["per_class"], range(4)):
        found = row["models"][of_model]
        sums = [run.counts[:, :, row["id"]].sum(axis=0) for run in runs_of(study[0], found["model"])]
        assert found["value"] == pytest.approx(np.mean([right / (all_ + said - right) for all_, right, said in sums]))
        if row["groups"] == 1:
            assert found["low"] is None and found["high"] is None  # nothing is known of other drives
        else:
            assert 0 <= found["low"] < found["value"] < found["high"] <= 1
    assert [row["groups"] for row in section["per_class"]] == [GROUPS, GROUPS, 1]
    mean = np.mean([row["models"][0]["value"] for row in section["per_class"]])
    assert mean == pytest.approx(next(row["mean_iou"] for row in section["scores"] if row["model"] == "good_model"))


def test_mean_iou_of_each_group_has_students_interval_over_seeds(study, section):
    assert [row["group"] for row in section["per_group"]] == sorted(set(DRIVES))
    row = section["per_group"][3]
    found = row["models"][1]
    scores = []
    for run in runs_of(study[0], found["model"]):
        truth, right, said = run.counts[row["group"] == DRIVES].sum(axis=0)
        there = truth > 0
        scores.append(np.mean((right / (truth + said - right))[there]))
    assert row["images"] == IMAGES // GROUPS and found["value"] == pytest.approx(np.mean(scores))
    ends = stats.t.interval(0.95, SEEDS - 1, np.mean(scores), stats.sem(scores))
    assert (found["low"], found["high"]) == pytest.approx(ends)


def test_objects_found_by_size(study, section):
    table = section["objects"]
    assert [row["size"] for row in table["sizes"]] == ["all", "tiny", "small", "medium", "large"]
    assert [row["pixels"] for row in table["sizes"]][1:3] == ["< 100", "100 to < 1000"]
    for b, row in enumerate(table["sizes"]):
        bins = slice(None) if b == 0 else slice(b - 1, b)
        for found in row["models"]:
            sums = [run.objects[:, :, :, bins].sum(axis=(0, 2, 3)) for run in runs_of(study[0], found["model"])]
            assert row["objects"] == sums[0][0]
            assert found["value"] == pytest.approx(np.mean([hits / objects for objects, hits in sums]))
            assert found["low"] < found["value"] < found["high"]
        values = {found["model"]: found["value"] for found in row["models"]}
        assert len(row["pairs"]) == 6
        for pair in row["pairs"]:
            assert pair["difference"] == pytest.approx(values[pair["first"]] - values[pair["second"]])
            assert pair["low"] < pair["difference"] < pair["high"] and pair["difference"] >= 0
    # .9 and .4 of some hundred objects: the intervals say so.
    pair = next(
        pair for pair in table["sizes"][0]["pairs"] if {"good_model", "poor"} == {pair["first"], pair["second"]}
    )
    assert pair["first"] == "good_model" and pair["low"] > 0.3


def test_what_swallowed_the_missed_objects(study, section):
    for row in section["objects"]["classes"]:
        for found in row["models"]:
            (into,) = found["swallowed_by"]
            assert into == {"into": "car" if row["class"] == "road" else "road", "share": 1.0}


def test_found_share_by_hand():
    counts = np.array([[[4, 0], [1, 0]], [[3, 1], [3, 0]], [[0, 0], [0, 0]]])  # (..., all and found, classes)
    np.testing.assert_array_equal(found_share(counts), [1 / 4, 3 / 4, np.nan])


def test_the_headline_says_what_is_settled(section):
    results = {(pair["first"], pair["second"]): pair["result"] for pair in section["pairs"]}
    assert results["good_model", "poor"] == results["good_model", "middle"] == "better"
    best = section["scores"][0]
    settled = sum(result != "not settled" for result in results.values())
    assert section["headline"] == (
        f"good_model has the highest mean IoU, {best['mean_iou']:.4f} (95 % interval {best['low']:.4f} to "
        f"{best['high']:.4f}). It is better than middle, other_middle and poor. Of 6 pairs of models, {settled} are "
        "settled."
    )
    assert settled == 5  # .70 and .69 with seeds that vary by .01


def test_the_text_shows_the_objects_found(study, section):
    lines = str(study[1]).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Objects found (at least 50%"))
    cell = section["objects"]["sizes"][1]["models"][0]
    assert "tiny < 100" in lines[start + 1]
    assert f"{cell['value']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})" in lines[start + 3]


@pytest.mark.parametrize(
    ("kind", "said", "spent"), [("seconds", "the budget in CPU seconds", True), ("gpu-seconds", "not measured", False)]
)
def test_a_budget_of_seconds_is_reported_with_what_is_known(tmp_path, kind, said, spent):
    write_study(tmp_path, {"a": 0.9, "b": 0.5}, 2)
    stored = json.loads((tmp_path / "study.json").read_bytes())
    stored["plan"]["budget"] = {"kind": kind, "value": 100.0}
    (tmp_path / "study.json").write_text(json.dumps(stored))
    found = report(tmp_path)
    assert said in str(found) and said in found.table["seconds_note"]
    for row in found.table["costs"]:
        assert row["spent"] == (row["cpu_seconds"] if spent else None)


def test_counts_of_an_earlier_version_are_reported_without_what_they_lack(tmp_path):
    write_study(tmp_path, {"a": 0.9, "b": 0.5}, 2, old=("a", "b"))
    assert read_counts(counts_path(tmp_path, "a", "drawn", 0, "val")).objects is None
    (section,) = report(tmp_path).table["sections"]
    assert section["objects"] is None and section["curves"] == [] and section["palette"] is None
    assert len(section["per_class"]) == 3 and len(section["pairs"]) == 1
    # One run without objects, and nothing is said of any: a mean over some runs is no mean.
    write_study(tmp_path, {"a": 0.9, "b": 0.5}, 2, old=("a",))
    (section,) = report(tmp_path).table["sections"]
    assert section["objects"] is None and {run["model"] for run in section["curves"]} == {"b"}


def test_curves_keep_their_ends(section):
    curve = next(run for run in section["curves"] if run["model"] == "middle")
    assert curve["images"] == [100.0, 200.0, 300.0] and curve["loss"] == [2.0, 1.0, pytest.approx(2 / 3)]
    assert curve["val_mean_iou"] == [None, None, 0.35]


def test_one_group_gives_values_and_no_interval(tmp_path):
    """All images of one drive, too few for blocks: images are the groups, and each stands for itself."""
    names = tuple(f"drive00_{i:04}" for i in range(4))
    write_study(tmp_path, {"a": 0.9, "b": 0.5}, 1, names=names)
    (section,) = report(tmp_path).table["sections"]
    assert section["groups"]["unit"] == "image"
    assert all(found["low"] is None for row in section["per_group"] for found in row["models"])  # one seed
    assert json.loads((tmp_path / "report.json").read_text())["sections"] == [section]


def test_what_does_not_vary_has_no_interval(tmp_path):
    """0 of the objects in every run: an interval from 0 to 0 would say that no run will ever find one."""
    write_study(tmp_path, {"a": 0.9, "none": 0.0}, 2)
    (section,) = report(tmp_path).table["sections"]
    row = section["objects"]["sizes"][0]
    assert row["models"][0]["low"] is not None
    assert row["models"][1] == {"model": "none", "value": 0.0, "low": None, "high": None}


def run_with_objects(images, counts):
    """What a table of objects reads of a run; counts: (images, 2) or less, small objects of class 0, all and found."""
    objects = np.zeros((images, 2, 3, 4), np.int64)
    objects[:, :, 0, 1] = counts
    return types.SimpleNamespace(
        objects=objects,
        swallowed=np.zeros((3, 4), np.int64),
        size_edges=np.array([100, 1000, 10000]),
        overlap=np.array(0.5),
        classes=CLASSES,
    )


@pytest.mark.parametrize("found", range(1, 7))
def test_a_share_that_is_the_same_everywhere_has_no_interval_either(found):
    """Sums of .4 in float64 differ in their last bit: that is no variance."""
    same = run_with_objects(6, [7, found])
    scored = Scored({"a": [same] * 2, "b": [same] * 2}, np.array([0, 0, 1, 1, 1, 2]), ("x", "y", "z"), True)
    for row in objects_table(scored)["sizes"]:
        assert [(model["value"], model["low"]) for model in row["models"]] == [(pytest.approx(found / 7), None)] * 2
        assert row["pairs"][0]["low"] is None


def test_the_one_run_of_a_fixed_model_is_the_partner_of_each_run_of_another():
    random = np.random.default_rng(0)
    fixed, *trained = [run_with_objects(24, np.stack([np.full(24, 9), random.integers(2, 9, 24)], 1)) for _ in range(4)]
    member = np.repeat(np.arange(12), 2)
    names = tuple(f"drive {i}" for i in range(12))
    rows = {}
    for runs, names_of_fixed in (([fixed], ("rival",)), ([fixed] * 3, ())):
        scored = Scored({"trained": trained, "rival": runs}, member, names, True, fixed=names_of_fixed)
        rows[names_of_fixed] = objects_table(scored)["sizes"][0]["pairs"]
    assert rows["rival",] == rows[()] and rows[()][0]["low"] is not None
    with pytest.raises(InputError, match="Paired seeds must be the same"):
        objects_table(Scored({"trained": trained, "rival": [fixed]}, member, names, True))


def test_without_objects_in_the_truth_there_are_no_rows(study):
    nothing = run_with_objects(2, 0)
    scored = Scored({"a": [nothing], "b": [nothing]}, np.array([0, 1]), ("x", "y"), True)
    assert objects_table(scored) == {"overlap": 0.5, "sizes": [], "classes": []}
