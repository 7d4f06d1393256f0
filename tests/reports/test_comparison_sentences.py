"""Sentences and rows of a comparison, parsed: sign, rounding and winner agree with the numbers in them."""

import math
import re

import numpy as np
import pytest

from kseg.io.text import agreeing_digits, shown_gap
from kseg.metrics.bootstrap import paired_bootstrap, scores_of_counts
from kseg.reports.comparison_table import Comparison, difference_rows, verdict

NUMBER = r"[+-]?\d+\.\d+"


def drawn(seed):
    """Two scores, and an interval of their difference that may hold 0, barely, or not, at scales from .3 to 1e-6."""
    random = np.random.default_rng(seed)
    values = random.uniform(0, 1, 2)
    if seed % 3:
        values[1] = np.clip(values[0] + random.normal() * 10.0 ** -random.integers(1, 7), 0, 1)
    gap = values[1] - values[0]
    low, high = gap - abs(random.normal(0, abs(gap) * 1.5 + 1e-9, 2)) * [1, -1]
    return values.tolist(), [float(low), float(high)], float(random.uniform())


@pytest.mark.parametrize("block", range(4))
def test_the_verdict_agrees_with_its_numbers(block):
    kinds = set()
    for seed in range(500 * block, 500 * (block + 1)):
        values, (low, high), above = drawn(seed)
        said = verdict(("a", "b"), values, (low, high), above, "drive")
        found = [float(text) for text in re.findall(NUMBER, said["text"])]
        better, worse, gap, *ends = found
        settled = low > 0 or high < 0
        kinds.add((settled, values[1] > values[0]))
        # The difference is the one of the two numbers before it, and not negative: the higher one is named first.
        assert gap == pytest.approx(better - worse, abs=1e-12) and gap >= 0
        assert ends[0] <= gap <= ends[1]
        ahead = int(values[1] > values[0])
        assert better == pytest.approx(values[ahead], abs=5.1e-5)
        assert ends == pytest.approx((low, high) if ahead else (-high, -low), abs=5.1e-5)
        if settled:
            assert said["winner"] == ahead and said["text"].startswith(f"{'ab'[ahead]} has the higher mean IoU: ")
            assert ends[0] > 0
        else:
            assert said["winner"] is None and said["text"].startswith("No clear winner by mean IoU: ")
            assert ends[0] <= 0 <= ends[1]
            assert f"{'ab'[ahead]} is ahead in " in said["text"]
    assert len(kinds) == 4


def test_the_sentence_of_the_issue():
    """0.0696 and 0.0532 are .070 and .053 with three digits; the difference was shown as -0.016."""
    said = verdict(("A", "B"), [0.0696, 0.0532], [-0.021, -0.011], 0.0, "drive")
    assert said == {
        "winner": 0,
        "text": "A has the higher mean IoU: 0.0696 against 0.0532, a difference of +0.0164 (95 % interval by drive "
        "+0.0110 to +0.0210).",
    }
    assert shown_gap(0.0532, 0.0696, 3) == 0.017


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100 %"), (0.9999, "over 99 %"), (0.5, "50 %"), (0.004, "under 1 %")]
)
def test_only_all_resamples_are_a_hundred_per_cent(share, text):
    said = verdict(("A", "B"), [0.2, 0.3], [-0.1, 0.3], share, "image")
    assert f"B is ahead in {text} of the resamples" in said["text"]


def test_without_truth_nothing_is_compared():
    said = verdict(("A", "B"), [0.5, 0.5], [-0.0, 0.0], 0.5, "image")
    assert said == {"winner": None, "text": "A and B have the same mean IoU, also in each resample."}
    said = verdict(("A", "B"), [math.nan] * 2, [math.nan] * 2, math.nan, "image")
    assert said == {"winner": None, "text": "There is no mean IoU to compare: no pixel of the truth is of a class."}


def test_digits_show_on_which_side_of_0_an_interval_lies():
    assert agreeing_digits(0.5, 0.52, -0.01, 0.05, 3) == 3
    assert agreeing_digits(0.5, 0.52, 0.0004, 0.05, 3) == 4  # with three it would begin at 0
    assert agreeing_digits(0.5, 0.52, 0.00001, 0.05, 3) == 5
    assert agreeing_digits(0.0695, 0.0535, -0.0161, -0.0159, 3) == 4  # .070, .054 (.053): .016 within .016 to .016


@pytest.mark.parametrize("seed", range(3))
def test_rows_agree_with_the_numbers_beside_them(seed):
    """On the page by its digits, in the text as printed."""
    random = np.random.default_rng(seed)
    truth = random.integers(50, 500, (9, 4))
    right = [random.binomial(truth, share) for share in (0.7, 0.71, 0.5)]
    counts = np.stack([truth, *right, *(r + random.integers(0, 60, r.shape) for r in right)], axis=1)
    whole = scores_of_counts(counts.sum(axis=0))
    intervals = paired_bootstrap(counts, resamples=500)
    rows = difference_rows(whole, intervals, None, counts[:, 0].sum(axis=0))
    for row in (*rows["scores"], *rows["per_class"]):
        for model, found in list(enumerate(row["differences"]))[1:]:
            low, high = (round(end, found["digits"]) for end in found["by_image"])
            gap = shown_gap(row["values"][0], row["values"][model], found["digits"])
            assert low <= gap <= high
            assert (low > 0 or high < 0) == (found["by_image"][0] > 0 or found["by_image"][1] < 0)
    table = {**rows, "bootstrap": {"groups": []}}
    lines = Comparison(("a", "b", "c"), (), (), table)._difference(2).splitlines()[1:-1]
    assert len(lines) == len(rows["scores"])
    for line in lines:
        first, other, gap, low, high = (float(text) for text in re.findall(NUMBER, line))
        assert gap == pytest.approx(other - first, abs=1e-12) and low <= gap <= high
