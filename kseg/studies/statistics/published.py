"""Two published means with their spreads over seeds: how likely is their ranking wrong?"""

import dataclasses
import math
import numbers

from kseg.io.errors import InputError
from kseg.studies.statistics.intervals import student

HIGH = 0.05  # the paper's bound for a high probability of a false claim


@dataclasses.dataclass(frozen=True)
class PublishedMean:
    """A row of a paper: mean, standard deviation over runs (not the standard error), and the number of runs."""

    mean: float
    deviation: float
    runs: int

    @classmethod
    def of_text(cls, text: str) -> "PublishedMean":
        """Read MEAN,DEVIATION,RUNS, such as .7532,.0041,5."""
        parts = text.replace(" ", "").split(",")
        try:
            mean, deviation, runs = float(parts[0]), float(parts[1]), int(parts[2])
        except (ValueError, IndexError) as error:
            raise InputError(f"A mean is MEAN,DEVIATION,RUNS, such as .7532,.0041,5, got {text!r}.") from error
        if len(parts) != 3:
            raise InputError(f"A mean is MEAN,DEVIATION,RUNS, such as .7532,.0041,5, got {text!r}.")
        return cls(mean, deviation, runs)

    def __post_init__(self):
        whole = isinstance(self.runs, numbers.Integral) and self.runs >= 2
        if not (math.isfinite(self.mean) and 0 <= self.deviation < math.inf and whole):
            raise InputError(
                "A published mean needs a number, a standard deviation of 0 or more and two runs or more, got "
                f"{self.mean}, {self.deviation} and {self.runs}. One run has no spread."
            )

    def __str__(self):
        return f"{self.mean:g} (standard deviation {self.deviation:g}, {self.runs} runs)"


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Two published rows and the probability that their order is the wrong one; `str()` is the sentence."""

    first: PublishedMean
    second: PublishedMean
    chance: float

    def __str__(self):
        if self.first.mean == self.second.mean:
            return f"Row 1 and row 2 have the same mean, {self.first.mean:g}: they have no order to judge."
        better, worse = ("1", "2") if self.first.mean > self.second.mean else ("2", "1")
        verdict = f"under {HIGH:g}, so the seeds do not explain it"
        if self.chance >= HIGH:
            verdict = f"not under {HIGH:g}, so it may be chance"
        return (
            f"Row 1: {self.first}. Row 2: {self.second}.\n"
            f"The probability that row {better} is in truth not above row {worse} is {_digits(self.chance)}: "
            f"{verdict}. "
            "This is about seeds alone; other test images add to it."
        )


def judge(first, second):
    """Return the Ranking of two PublishedMean.

    The probability is that of Christodoulou et al. 2025 (False Promises in Medical Imaging AI?, arXiv 2505.04720) for
    segmentation: under a flat prior, the posterior of the difference of two means is Student's t, so

        P(mu_A <= mu_B) = t_{n-1}( sqrt(n) (b - a) / sqrt(s_A^2 + s_B^2 - 2 r s_A s_B) ).

    There n are test images and r is the correlation of two models over them. Here n are runs with seeds of their own,
    so r = 0. For unequal numbers of runs, each variance is divided by its own and the degrees of freedom are those of
    the smaller: no less cautious than Welch's (1947). A spread over images, folds or one common split is another
    thing, and a standard error must be multiplied by the root of the number of runs first.

    Raises:
        InputError: both spreads are 0, or one mean seems to be a share of 1 and the other in percent.
    """
    smaller, larger = sorted((first.mean, second.mean))
    if 0 < smaller <= 1 < larger and larger >= 10 * smaller:
        raise InputError(
            f"Both means must have one unit, but {smaller:g} looks like a share of 1 and {larger:g} like percent. "
            "Give both, and their deviations, as shares of 1."
        )
    error = math.hypot(first.deviation / math.sqrt(first.runs), second.deviation / math.sqrt(second.runs))
    if error == 0:
        raise InputError("One of the two standard deviations must be above 0: without a spread there is no chance.")
    df = min(first.runs, second.runs) - 1
    return Ranking(first, second, float(student().sf(abs(first.mean - second.mean) / error, df)))


def _digits(probability):
    """Two digits that count, or more, so that no number is rounded to the other side of the bound."""
    if probability < 1e-4:
        return "under 0.0001"
    for digits in range(2, 9):
        text = f"{probability:.{digits}g}"
        if (float(text) < HIGH) == (probability < HIGH):
            break
    return text
