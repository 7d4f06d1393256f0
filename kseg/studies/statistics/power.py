"""How many seeds and groups does a difference take? Before a study from a pilot's variances, and after it."""

import dataclasses
import functools

import numpy as np

from kseg.data.groups import FEW
from kseg.io.errors import InputError
from kseg.studies.statistics.intervals import LEVEL

WANTED = 0.8
FEWEST_SEEDS = 6
FEWEST_GROUPS = FEW
MOST_SEEDS = (30, 1_000)  # as many as a study may well have; where no number of groups helps, as many as one could
MOST_GROUPS = 100_000
_MIDDLES = (np.arange(4000) + 0.5) / 4000  # of equal shares of a distribution


def power(components, seeds, groups, *, paired=True, difference=0.01, level=LEVEL):
    """Return the probability that the interval of a study excludes 0 where the true difference is `difference`.

    The noncentral t of the variance and degrees of freedom that the components give (Montgomery, Design and Analysis of
    Experiments), averaged over 4,000 quantiles of the estimated variance: scipy's own is nan for large shifts. It is as
    good as the components, which a pilot of few seeds knows badly. Ask about a difference that would matter, never
    about the one that was found: such "observed power" only repeats the p value (Hoenig and Heisey 2001).

    Args:
        components: Components of the difference of two models. seeds: runs of each model. groups: of images like the
            pilot's. paired: whether run i of both models has the same seed. difference: of mean IoU, as a share of 1.
            level: of the interval.
    """
    if seeds < 2 or groups < 2 or not difference > 0:
        raise InputError(
            f"Power needs two seeds, two groups and a difference above 0, got {seeds}, {groups} and {difference}."
        )
    variance, df = components.variance(seeds, groups, paired)
    if variance == 0:
        return 1.0
    from scipy import stats  # here: it takes a second, and a refused command needs none

    bound = stats.t.ppf((1 + level) / 2, df)
    shift = difference / np.sqrt(variance)
    edge = bound * np.sqrt(stats.chi2.ppf(_MIDDLES, df) / df)
    return float(np.mean(stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift)))


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a study needs to see a difference, and what it has; `str()` is the sentence.

    power: of the seeds and groups at hand. needed_seeds, needed_groups: None where 1,000 seeds and 100,000 groups are
    too few. unit: what a group is called. pairs: of models, each of which is asked about.
    """

    difference: float
    wanted: float
    seeds: int
    groups: int
    power: float
    needed_seeds: int | None
    needed_groups: int | None
    unit: str = "groups"
    pairs: int = 1

    def __str__(self):
        chance = f"{100 * self.power:.0f} %"
        if self.power > 0.995:
            chance = "over 99 %"
        have = f"you have {self.seeds} and {self.groups}, which see it with {chance}"
        among = f" among {self.pairs} pairs of models" if self.pairs > 1 else ""
        see = f"To see a difference of {self.difference:g}{among} with a probability of {100 * self.wanted:.0f} %"
        if self.needed_seeds is None:
            many = f"more than {MOST_SEEDS[-1]:,} seeds per model and {MOST_GROUPS:,} {self.unit}"
            return f"{see}, {many} are needed; {have}."
        return f"{see}, you need {self.needed_seeds:,} seeds per model and {self.needed_groups:,} {self.unit}; {have}."


def budget(
    components,
    *,
    seeds=None,
    groups=None,
    paired=True,
    difference=0.01,
    wanted=WANTED,
    level=LEVEL,
    unit="groups",
    pairs=1,
):
    """Say how many seeds and groups a study needs to see a difference, and what it has.

    The fewest groups from those at hand on (a drive to label costs more than a run) for which 30 seeds or fewer are
    enough, and then the fewest seeds. Where no number of groups makes 30 seeds enough, up to 1,000 seeds are asked for.
    Never under six seeds or ten groups, which a verdict asks for. Among several pairs of models Holm's correction asks
    the most of the pair with the smallest p: 1 - level divided by the number of pairs. All pairs are planned for that.

    Args:
        components: Components of the difference. seeds, groups: at hand; None: those of the components.
        paired, difference: as in `power`. level: of the interval of a single pair. wanted: the power to reach.
        unit: what a group is called. pairs: how many pairs of models the study compares.
    """
    seeds = seeds or components.seeds
    groups = groups or components.groups
    if not 0 < wanted < 1:
        raise InputError(f"The power to reach must lie between 0 and 1, got {wanted}.")
    corrected = 1 - (1 - level) / pairs

    def reached(seeds, groups):
        return power(components, seeds, groups, paired=paired, difference=difference, level=corrected)

    def enough(seeds, groups):
        return reached(seeds, groups) >= wanted

    needed_seeds, needed_groups = _needed(enough, max(groups, FEWEST_GROUPS))
    return Budget(
        difference=difference,
        wanted=wanted,
        seeds=seeds,
        groups=groups,
        power=reached(seeds, groups),
        needed_seeds=needed_seeds,
        needed_groups=needed_groups,
        unit=unit,
        pairs=pairs,
    )


def _needed(enough, fewest_groups):
    """Return the (seeds, groups) that are enough, (None, None) where none are."""
    for most in MOST_SEEDS:
        groups = _first(fewest_groups, MOST_GROUPS, functools.partial(enough, most))
        if groups is not None:
            return _first(FEWEST_SEEDS, most, functools.partial(enough, groups=groups)), groups
    return None, None


def _first(low, high, holds):
    """The first whole number of low..high from which something holds, by halving; None if not even at the end."""
    high = max(low, high)
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
