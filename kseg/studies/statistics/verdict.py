"""Every pair of models of a study, compared, with one plain sentence each."""

import dataclasses
import itertools

import numpy as np

from kseg.io.errors import InputError
from kseg.io.text import shown_gap, signed
from kseg.studies.statistics import intervals
from kseg.studies.statistics.intervals import LEVEL, RESAMPLES, Estimate, Groups
from kseg.studies.statistics.power import FEWEST_GROUPS, Budget, budget
from kseg.studies.statistics.significance import SeedTest, Superiority, holm, seed_test, smallest_p, superiority
from kseg.studies.statistics.variance import components, linearised

EQUIVALENCE = 0.01
BETTER = "better"
EQUAL = "practically equal"
OPEN = "not settled"
_DIGITS = 4
_MOST_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models, the one with the higher score first; differences are first minus second.

    first, second: their names. first_score, second_score, difference: Estimates of mean IoU. p, p_equivalent: of "no
    difference" and of "a difference of more than `equivalence`", after Holm's correction over all pairs. seed_test: the
    permutation test over seeds. superiority: P(first > second). shares: of the difference's variance by source.
    budget: what seeing a difference of `equivalence` takes. Both are None with one run a model. groups: how many of
    what `unit` says. fixed: those of the two that were not trained: one run, that no seed would change. Where both are,
    seed_test and superiority are None: only groups vary. tested: what seed_test is over, "seeds" or,
    where each run leaves out a group, "groups".
    """

    first: str
    second: str
    first_score: Estimate
    second_score: Estimate
    difference: Estimate
    p: float
    p_equivalent: float
    equivalence: float
    seed_test: SeedTest | None
    superiority: Superiority | None
    shares: dict[str, float] | None
    budget: Budget | None
    groups: int
    unit: str
    fixed: tuple[str, ...] = ()
    tested: str = "seeds"

    @property
    def result(self) -> str:
        """BETTER, EQUAL or OPEN."""
        alpha = 1 - self.difference.level
        if self.lacks:
            return OPEN
        if self.p_equivalent < alpha and -self.equivalence < self._narrow.low <= self._narrow.high < self.equivalence:
            return EQUAL
        if self.p < alpha and self.difference.low > 0:
            return BETTER
        return OPEN

    @property
    def verdict(self) -> str:
        """One sentence that says what is settled, or why nothing is."""
        if self.result == EQUAL:
            scores, change, interval = self._shown(self._narrow)
            return (
                f"{self.first} and {self.second} are practically equal: mean IoU {scores}, and the difference {change} "
                f"({interval}) lies within {-self.equivalence:g} to {self.equivalence:+g}."
            )
        scores, change, interval = self._shown(self.difference)
        numbers = f"mean IoU {scores}, difference {change} ({interval})"
        if self.result == BETTER:
            return f"{self.first} is better than {self.second}: {numbers}."
        return f"Not settled whether {self.first} or {self.second} is better: {numbers}; {', and '.join(self._open())}."

    @property
    def digits(self) -> int:
        """How many decimals show the scores, their difference and its interval without contradiction."""
        return self._digits(self.difference)

    def _digits(self, difference):
        return digits_for(self.first_score.value, self.second_score.value, difference, self.equivalence)

    @property
    def _narrow(self):
        """The difference with the interval of two one-sided tests, 90 % for tests at 5 %."""
        return dataclasses.replace(self.difference, level=2 * self.difference.level - 1)

    @property
    def lacks(self) -> list[str]:
        """What a study lacks to settle anything, whatever its numbers say."""
        test = self.seed_test
        alpha = 1 - self.difference.level
        reasons = []
        if test is not None and test.smallest_p >= alpha and self.tested == "seeds":
            fewest = next(runs for runs in itertools.count(2) if smallest_p(runs, runs, test.paired) < alpha)
            runs = min(test.runs)
            of = "per model"
            if self.fixed:
                of = f"of {self.second if self.first in self.fixed else self.first}"
            seeds = f"1 seed {of} is" if runs == 1 else f"{runs} seeds {of} are"
            reasons.append(f"{seeds} too few ({fewest} are needed)")
        if self.groups < FEWEST_GROUPS:
            reasons.append(f"{self.groups} {self.unit} are too few ({FEWEST_GROUPS} are needed)")
        return reasons

    def _open(self):
        """Why nothing is settled."""
        reasons = []
        if self.difference.low <= 0 <= self.difference.high:
            reasons.append("the interval contains 0")
        reasons += self.lacks
        if not reasons:
            reasons.append(f"the interval excludes 0, but over all pairs of models p is {self._shown_p()} (Holm)")
        return reasons

    def _shown_p(self):
        """The p value with digits enough to show that it is not below its bound."""
        alpha = 1 - self.difference.level
        for digits in range(2, _MOST_DIGITS):
            if round(self.p, digits) >= alpha:
                break
        return f"{self.p:.{digits}f}"

    def _shown(self, difference):
        """The two scores, their difference and its interval as text whose rounding contradicts nothing."""
        first = self.first_score.value
        second = self.second_score.value
        digits = self._digits(difference)
        level = f"{100 * difference.level:g} % interval"
        return (
            f"{first:.{digits}f} against {second:.{digits}f}",
            signed(shown_gap(second, first, digits), digits),
            f"{level} {signed(difference.low, digits)} to {signed(difference.high, digits)}",
        )


def digits_for(first, second, difference, equivalence):
    """Return how many decimals show two scores and their difference without contradiction, four or more.

    The difference shown is that of the scores as shown (`shown_gap`). It lies within its interval as shown, and it and
    the ends of the interval lie on the right side of 0 and of the equivalence margins.
    """
    for digits in range(_DIGITS, _MOST_DIGITS):
        gap = shown_gap(second, first, digits)
        low, high = round(difference.low, digits), round(difference.high, digits)
        ends = ((gap, difference.value), (low, difference.low), (high, difference.high))
        bounds = (-equivalence, 0.0, equivalence)
        sides = all(_side(shown, bound) == _side(end, bound) for shown, end in ends for bound in bounds)
        if sides and low <= gap <= high:
            return digits
    return _MOST_DIGITS


def _side(value, bound):
    return (value > bound) - (value < bound)


def compare(
    models,
    groups=None,
    *,
    paired=True,
    equivalence=EQUIVALENCE,
    level=LEVEL,
    resamples=RESAMPLES,
    seed=0,
    unit="groups",
    fixed=(),
):
    """Compare all models of a study by their mean IoU: which is better, or was it the seed, the drive, the budget?

    docs/explanation/statistics.md says what each number means, what it assumes and where it fails.

    Args:
        models: by name, integers (S, n, 3, C) of S runs, n images and C classes: pixels of the truth, those predicted
            rightly, those predicted (`kseg.metrics.bootstrap.ImageCounts` of one model). The same images for all.
        groups: n names (drive, city, block) of what a new study would draw anew; None: each image is drawn alone, which
            makes intervals too narrow where images are alike.
        paired: run i of all models has the same seed and order of data.
        equivalence: a difference of mean IoU, as a share of 1, that does not matter.
        level: of intervals; 1 - level is the bound of every p. resamples, seed: of the bootstrap over groups.
        unit: what a group is called in sentences; "images" where there are none.
        fixed: names of the models that were not trained, of one run each. Each run of another model is compared with
            that run, whether seeds are paired or not: the seeds of the other model vary alone. Between two fixed models
            only groups vary.
    Returns:
        list of Comparison, one for each pair, in the order of the models.
    Raises:
        InputError: counts that cannot be, fewer than two models or groups, paired models with other numbers of runs.
    """
    _check(models, equivalence, level, fixed)
    if groups is None:
        unit = "images"
    arrays, member = intervals.check_models(models, groups)
    scores = intervals.resampled_scores(arrays, member, resamples, seed)
    drawn = Groups.of(next(iter(arrays.values())), member)
    values = {name: linearised(counts) for name, counts in arrays.items()}
    means = {name: whole.mean() for name, (whole, _) in scores.items()}
    pairs = [sorted(pair, key=means.get, reverse=True) for pair in itertools.combinations(models, 2)]
    partners = [intervals.partners(scores, pair, fixed, paired) for pair in pairs]
    differences = [
        intervals.difference_interval(*of_pair, drawn, paired=of_seeds, level=level) for of_pair, of_seeds in partners
    ]
    adjusted = holm([difference.p for difference in differences])
    equal = holm([difference.p_equivalent(equivalence) for difference in differences])
    results = []
    for pair, (of_pair, of_seeds), difference, p, p_equivalent in zip(
        pairs, partners, differences, adjusted, equal, strict=True
    ):
        first, second = pair
        alone = tuple(name for name in pair if name in fixed)
        runs = [whole for whole, _ in of_pair]
        of_images = [np.repeat(values[name], len(runs[0]) if name in fixed else 1, axis=0) for name in pair]
        asked = {"paired": of_seeds, "difference": equivalence, "level": level, "unit": unit, "pairs": len(pairs)}
        shares, needs = _shares_and_budget(*of_images, member, asked)
        test = chance = None
        if len(alone) < 2:
            test = seed_test(*runs, paired=of_seeds)
            chance = superiority(*runs, paired=of_seeds, level=level)
        results.append(
            Comparison(
                first=first,
                second=second,
                first_score=intervals.score_interval(scores[first], drawn, level),
                second_score=intervals.score_interval(scores[second], drawn, level),
                difference=difference,
                p=float(p),
                p_equivalent=float(p_equivalent),
                equivalence=equivalence,
                seed_test=test,
                superiority=chance,
                shares=shares,
                budget=needs,
                groups=drawn.count,
                unit=unit,
                fixed=alone,
            )
        )
    return results


def _check(models, equivalence, level, fixed):
    if len(models) < 2:
        raise InputError(f"A comparison needs two models or more, got {len(models)}.")
    if not 0 < equivalence < 1 or not 0.5 < level < 1:
        raise InputError(f"equivalence must lie in 0..1 and level in .5..1, got {equivalence} and {level}.")
    for name in fixed:
        if name not in models or len(models[name]) != 1:
            raise InputError(f"A fixed model has one run, but {name} has {len(models.get(name, ()))}.")


def _shares_and_budget(first, second, member, asked):
    """What `Comparison` says of variances, from two models' linearised scores; None, None with one run.

    asked: keyword arguments of `budget`.
    """
    runs = min(len(first), len(second))
    if runs == 1:
        return None, None
    found = components(first[:runs] - second[:runs], member)
    return found.shares(), budget(found, **asked)
