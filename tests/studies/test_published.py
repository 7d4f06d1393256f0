"""Two published means: the paper's formula, the posterior that it is, and the sentence."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from kseg.io.errors import InputError
from kseg.studies.statistics.published import PublishedMean, judge


def test_the_papers_formula_for_equal_numbers_of_runs():
    found = judge(PublishedMean(0.7532, 0.0041, 5), PublishedMean(0.7480, 0.0052, 5))
    # sqrt(5) * .0052 / sqrt(.0041^2 + .0052^2) = 1.7559; t of 4 degrees of freedom
    expected = stats.t.cdf(-(5**0.5) * 0.0052 / (0.0041**2 + 0.0052**2) ** 0.5, 4)
    assert found.chance == pytest.approx(expected) == pytest.approx(0.0770, abs=1e-4)
    swapped = judge(found.second, found.first)
    assert swapped.chance == found.chance  # of a wrong order, whichever row comes first
    points = judge(PublishedMean(75.32, 0.41, 5), PublishedMean(74.80, 0.52, 5))
    assert points.chance == pytest.approx(found.chance)  # per cent


@pytest.mark.parametrize(("runs_a", "runs_b", "spread"), [(5, 5, 1.0), (3, 10, 1.0), (10, 3, 2.0), (20, 20, 0.5)])
def test_it_is_no_bolder_than_the_posterior_under_a_flat_prior(runs_a, runs_b, spread):
    """Draw both true means from their posteriors, mean + s / sqrt(n) * t_{n-1} (Behrens and Fisher)."""
    a = PublishedMean(0.012, 0.01, runs_a)
    b = PublishedMean(0.0, 0.01 * spread, runs_b)
    random = np.random.default_rng(0)
    drawn_a = a.mean + a.deviation / runs_a**0.5 * random.standard_t(runs_a - 1, 400_000)
    drawn_b = b.mean + b.deviation / runs_b**0.5 * random.standard_t(runs_b - 1, 400_000)
    posterior = np.mean(drawn_a <= drawn_b)
    chance = judge(a, b).chance
    assert posterior - 0.01 < chance < posterior + 0.04


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (
            (0.76, 0.004, 5),
            (0.74, 0.004, 5),
            "row 1 is in truth not above row 2 is 0.00069: under 0.05, so the seeds do",
        ),
        ((0.74, 0.004, 5), (0.742, 0.004, 5), "row 2 is in truth not above row 1 is 0.24: not under 0.05, so it may"),
        ((0.74, 0.004, 5), (0.74, 0.005, 3), "the same mean, 0.74"),
        ((0.9, 1e-9, 9), (0.1, 0.0, 9), "is under 0.0001: under 0.05"),
    ],
)
def test_the_sentence(a, b, words):
    assert words in str(judge(PublishedMean(*a), PublishedMean(*b)))


def test_a_probability_is_never_rounded_over_the_bound():
    # t of 4 degrees of freedom exceeds 2.1318 with .05; a little more and less
    for quantile, side in ((2.1330, "0.0499: under"), (2.1310, "0.05: not under")):
        error = (2 * 0.01**2 / 5) ** 0.5
        found = judge(PublishedMean(0.5 + quantile * error, 0.01, 5), PublishedMean(0.5, 0.01, 5))
        assert f"is {side} 0.05" in str(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".75,.004", "MEAN,DEVIATION,RUNS"),
        (".75,.004,5,6", "MEAN,DEVIATION,RUNS"),
        (".75,.004,five", "MEAN,DEVIATION,RUNS"),
        (".75,.004,2.5", "MEAN,DEVIATION,RUNS"),
        (".75,.004,1", "two runs or more"),
        (".75,-.004,5", "two runs or more"),
        ("nan,.004,5", "two runs or more"),
    ],
)
def test_bad_means_get_one_clear_line(text, message):
    with pytest.raises(InputError, match=message):
        PublishedMean.of_text(text)


def test_without_any_spread_there_is_nothing_to_judge():
    with pytest.raises(InputError, match="must be above 0"):
        judge(PublishedMean(0.7, 0.0, 5), PublishedMean(0.6, 0.0, 5))


def test_from_the_command_line(root):
    program = (
        "import sys, runpy\n"
        "sys.argv = ['evaluate.py', '--audit', '--mean=.7532,.0041,5', '--mean=.7480, .0052, 5']\n"
        f"sys.path[:0] = [{str(root)!r}, {str(root / 'scripts')!r}]\n"
        f"runpy.run_path({str(root / 'scripts' / 'evaluate.py')!r}, run_name='__main__')\n"
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    expected = judge(PublishedMean(0.7532, 0.0041, 5), PublishedMean(0.7480, 0.0052, 5))
    assert done.stdout == f"{expected}\nset()\n"
    for flags, message in (
        (["--mean=.7,.01,5", "--mean=.6,.01,5"], "--audit"),
        (["--audit", "--mean=.7,.01,5"], "given twice"),
        (["--audit", "--mean=.7,.01,5", "--mean=.6"], "MEAN,DEVIATION,RUNS"),
        (["--audit", "--mean=.7,.01,5", "--mean=75.1,.9,5"], "must have one unit"),
        (["--audit", "--mean=.7,.01,5", "--mean=.6,.01,5", "--model=m", "--output=o"], "Leave out --model, --output"),
    ):
        command = [sys.executable, str(root / "scripts" / "evaluate.py"), *flags]
        alone = subprocess.run(command, capture_output=True, text=True, check=False)
        assert alone.returncode == 2 and message in alone.stderr, alone.stderr
