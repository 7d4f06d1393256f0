"""Studies whose runs each leave out a drive: what is trained, scored and compared, and how often the intervals hold."""

import json
import pathlib

import fake_study
import numpy as np
import pytest
from scipy import stats

import kseg
from kseg.io.errors import InputError
from kseg.studies import study as study_module
from kseg.studies.engines import ENGINES
from kseg.studies.statistics.left_out import compare_left_out, estimate


@pytest.fixture
def plan(tmp_path, records, monkeypatch):
    """A pretended study over the images of train, seven, each of which is a group: train_0 to train_6."""
    (tmp_path / "fake").mkdir()
    monkeypatch.setenv("KSEG_FAKE", str(tmp_path / "fake"))
    monkeypatch.setattr(study_module, "PROGRAMS", fake_study.programs())
    monkeypatch.setitem(ENGINES, "local", fake_study.in_process)
    return {
        "name": "tiny",
        "output": str(tmp_path / "study"),
        "models": [{"name": "small"}, {"name": "large"}],
        "data": [{"name": "tiny", "data_dir": str(records)}],
        "seeds": 9,
        "budget": {"kind": "images", "value": 80},
        "flags": {"keep": "last"},
        "leave_out": "train_([0-9])",
    }


def test_seed_i_is_trained_without_group_i_and_scored_on_it(plan):
    found = kseg.study(plan)
    calls = (pathlib.Path(plan["output"]).parent / "fake" / "calls.txt").read_text().splitlines()
    # Seven groups: seeds 7 and 8 leave out the first two again.
    assert [line for line in calls if line.startswith("left")][::2] == [
        f"left out {i % 7}, records {i % 7}" for i in range(9)
    ]
    (section,) = found.table["sections"]
    assert section["left_out"] == list("0123456")
    assert section["groups"]["count"] == 7

    # By hand: a class of 200 + 100 pixels has IoU right / (200 - right); right is 60 + 10 of large + seed % 3 + i % 4.
    def score(model, seed):
        right = fake_study.fake_counts(model, seed)[:, 1].sum(axis=0)[0]
        return right / (200 * fake_study.IMAGES - right)

    for row in section["scores"]:
        of_group = [
            np.mean([score(row["model"], seed) for seed in range(9) if seed % 7 == group]) for group in range(7)
        ]
        assert list(row["runs"].values()) == pytest.approx(of_group)
        assert row["mean_iou"] == pytest.approx(np.mean(of_group))
    (pair,) = found.comparisons["tiny", "val"]
    assert pair.first == "large" and pair.groups == 7
    text = str(found)
    assert "tiny, scored on what each run left out of train:" in text
    # Seven groups and all signs alike: p is 2 / 2^7, but ten groups are needed.
    assert pair.seed_test.p == 2 / 2**7
    assert "7 groups are too few (10 are needed)." in pair.verdict and "seeds per model" not in pair.verdict
    assert "sign test p" in text and "seed test p" not in text
    with open(pathlib.Path(plan["output"]) / "report.json") as file:
        assert json.load(file) == json.loads(json.dumps(found.table))


def test_ten_groups_settle_a_difference():
    random = np.random.default_rng(0)
    base = random.uniform(0.3, 0.7, 10)  # groups are very different, and that is in no difference
    scores = {"a": base + 0.03 + random.normal(0, 0.01, 10), "b": base}
    (pair,) = compare_left_out(scores, unit="drives")
    expected = stats.ttest_rel(scores["a"], scores["b"])
    assert pair.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (pair.difference.low, pair.difference.high) == pytest.approx((low, high))
    assert pair.verdict.startswith("a is better than b: mean IoU ")
    assert pair.superiority.value == np.mean(scores["a"] > scores["b"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flags": {}}, 'model small has keep=best. Give flags = {keep = "last"}.'),
        ({"leave_out": "(t)rain"}, "leave_out needs two groups of train or more, but (t)rain gives 1"),
        ({"leave_out": "drives"}, "leave_out is drive, block:25 or a regular expression with a group in brackets"),
        ({"leave_out": "("}, "leave_out must be drive, block:25 or a regular expression, got '('"),
        ({"leave_out": "block:x"}, "leave_out block:N needs"),
        ({"leave_out": "(nope)"}, "leave_out (nope) must match every name"),
        ({"group_by": "drive"}, "group_by has no use with leave_out"),
        ({"pilot": "runs/pilot"}, "pilot has no use with leave_out"),
        ({"paired": False}, "leave paired out"),
        ({"leave_out": 3}, "leave_out must be text, got 3."),
    ],
)
def test_what_does_not_go_together_is_refused(plan, change, message):
    with pytest.raises(InputError) as error:
        kseg.study({**plan, **change})
    assert message in str(error.value)


def test_splits_to_score_are_refused(plan):
    plan["data"][0]["splits"] = ["val"]
    with pytest.raises(InputError, match="leave splits out of data"):
        kseg.study(plan)


def simulated(studies, groups, of_training, seed=0):
    """Differences of two models on each group that was left out (studies, groups), and the mean usefulness of training.

    A difference is that of the scored group, of the seed, and the mean over the groups trained on of what each of them
    makes of it: the training sets overlap.
    """
    random = np.random.default_rng(seed)
    of_group = random.normal(0, 0.02, (studies, groups)) + random.normal(0, 0.01, (studies, groups))
    useful = random.normal(0, of_training, (studies, groups))
    trained = (useful.sum(axis=1, keepdims=True) - useful) / (groups - 1)
    return of_group + trained, useful.mean(axis=1)


@pytest.mark.parametrize("groups", [6, 10, 18])
def test_intervals_hold_the_difference_of_models_trained_on_these_drives(groups):
    values, truth = simulated(2000, groups, of_training=0.02)
    intervals = [estimate(of_study) for of_study in values]
    held = np.mean([one.low <= true <= one.high for one, true in zip(intervals, truth, strict=True)])
    # A share of 95 % of 2,000 has a standard error of half a per cent.
    assert 0.93 < held < 0.97
    # What other training drives would make of it is not in them: they are too short for that, as the page says.
    assert np.mean([one.low <= 0 <= one.high for one in intervals]) < 0.93


def test_the_sign_test_calls_no_more_than_its_level():
    values, _ = simulated(300, 8, of_training=0, seed=1)
    nothing = np.zeros(8)
    calls = [compare_left_out({"a": of_study, "b": nothing})[0].seed_test.p < 0.05 for of_study in values]
    # 5 % of 300 has a standard error of 1.3 %.
    assert np.mean(calls) < 0.08
