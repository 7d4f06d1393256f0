"""Tests of a difference between two models: over their seeds, run against run, and over all pairs of models."""

import dataclasses
import math

import numpy as np

from kseg.studies.statistics.intervals import LEVEL, check_paired

MEANINGFUL = 0.75  # Bouthillier et al. 2021, section 4.1
_MOST = 100_000  # permutations: all of up to 16 paired seeds, or of 9 seeds a model


@dataclasses.dataclass(frozen=True)
class SeedTest:
    """A permutation test over seeds: its two-sided p, and the smallest p that so many seeds can give."""

    p: float
    smallest_p: float
    paired: bool
    runs: tuple[int, int]


def smallest_p(first, second, paired):
    """Return the smallest two-sided p of a permutation test: 2 / 2^n for n pairs, 2 / (n + m over n) unpaired."""
    ways = 2**first if paired else math.comb(first + second, first)
    return min(2 / ways, 1.0)


def seed_test(first, second, *, paired):
    """Test whether two models' scores differ by more than their seeds explain, on these images.

    Paired: flip the sign of each difference (Fisher 1935); unpaired: deal the runs out anew. Exact (every permutation)
    up to 16 pairs, else 100,000 random ones. It assumes no distribution, and so few seeds settle nothing: five pairs
    cannot give a p under 2/32 = .0625, six can give .031. The images stay as they are: it says nothing about other
    drives.

    Args:
        first, second: (S,), scores of the runs on all images; the same S if paired.
    """
    runs = len(first), len(second)
    if paired:
        check_paired(first, second)
    least = smallest_p(*runs, paired)
    if min(runs) == 1:  # a single run shows no spread, and SciPy takes none
        return SeedTest(1.0, least, paired, runs)
    if paired:
        kind = "samples"
        data = (np.asarray(first) - second,)
        statistic = np.mean
    else:
        kind = "independent"
        data = (first, second)
        statistic = _difference_of_means
    from scipy import stats  # here: it takes a second, and a refused command needs none

    done = stats.permutation_test(
        data,
        statistic,
        permutation_type=kind,
        n_resamples=_MOST,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return SeedTest(float(done.pvalue), least, paired, runs)


def _difference_of_means(first, second, axis=-1):
    return np.mean(first, axis=axis) - np.mean(second, axis=axis)


@dataclasses.dataclass(frozen=True)
class Superiority:
    """P(A > B): how often a run of A scores above a run of B, with its interval."""

    value: float
    low: float
    high: float

    @property
    def beyond_chance(self) -> bool:
        """The interval lies above one half."""
        return self.low > 0.5

    @property
    def meaningful(self) -> bool:
        """Beyond chance, and the interval reaches above .75: the paper's rule for calling A better."""
        return self.beyond_chance and self.high > MEANINGFUL


def superiority(first, second, *, paired, level=LEVEL):
    """Estimate the probability that a run of the first model beats one of the second on these images.

    Bouthillier et al. 2021 (Accounting for Variance in Machine Learning Benchmarks, arXiv 2103.03098, section 4.1 and
    appendix C). Their interval is a percentile bootstrap, which for six wins in six is 1 to 1. This one is Clopper's
    and Pearson's (1934) for the number of pairs, at least as wide as its level says. Unpaired, all pairs of runs are
    compared (Mann and Whitney 1947) and the interval is that of as many pairs as the model with fewer runs has; the
    mean over all pairs varies no more (Hoeffding 1963). A tie counts half. The paper draws test images anew for every
    run too; here they are those of the study.

    Args:
        first, second: (S,), scores of the runs on all images; the same S if paired.
    """
    first = np.asarray(first)
    second = np.asarray(second)
    if paired:
        check_paired(first, second)
        gaps = first - second
    else:
        gaps = first[:, None] - second
    from scipy import stats

    value = float(np.mean(gaps > 0) + np.mean(gaps == 0) / 2)
    pairs = min(len(first), len(second))
    wins = value * pairs
    tail = (1 - level) / 2
    low = 0.0
    high = 1.0
    if wins > 0:
        low = float(stats.beta.ppf(tail, wins, pairs - wins + 1))
    if wins < pairs:
        high = float(stats.beta.ppf(1 - tail, wins + 1, pairs - wins))
    return Superiority(value, low, high)


def holm(p_values):
    """Return Holm's p values (1979): with k tests of no true effect, one or more falls below .05 in 5 % of studies.

    Equal to statsmodels' multipletests(method="holm"), which would be a dependency for these lines.
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
