"""Intervals of mean IoU over crossed seeds and groups of images: the one part of a study that no library has.

A study crosses two samples: every training run (a seed) scores every image, and images come in groups (drives, cities).
The score of a model is the mean of its runs' mean IoU. An interval has to say what other seeds and other groups would
give. No bootstrap of crossed samples is exact (McCullagh 2000, Bernoulli 6, 285); resampling every level (Owen 2007,
arXiv 0711.0815, "pigeonhole bootstrap"; Owen and Eckles 2012, arXiv 1106.2125) counts the variance of single images two
to three times. So the resamples here are of whole groups and only estimate variances, of a ratio whose classes may
vanish from a resample. They are put together as in the analysis of variance: each part once.
"""

import dataclasses
import functools

import numpy as np

from kseg.io.errors import InputError, check_whole

RESAMPLES = 2000
LEVEL = 0.95


def mean_iou(counts):
    """Return the mean IoU over the classes of the truth, (...), from counts (..., 3, C); nan where there are none."""
    truth = counts[..., 0, :]
    hits = counts[..., 1, :]
    union = truth + counts[..., 2, :] - hits
    present = truth > 0
    iou = np.where(present, hits / np.where(present, union, 1), 0.0)
    with np.errstate(invalid="ignore"):
        return iou.sum(axis=-1) / present.sum(axis=-1)


def check_models(models, groups=None):
    """Return the models' counts as arrays and the number of each image's group, 0, 1, 2, ...

    Args:
        models: by name, integers (S, n, 3, C): the same n images and C classes for all, S may differ.
        groups: n names; None: each image is a group of its own.
    Raises:
        InputError: arrays of other shapes, counts that cannot be, another truth for a run or model, fewer than two
            groups.
    """
    arrays = {name: np.asarray(counts) for name, counts in models.items()}
    truth = None
    for name, counts in arrays.items():
        if counts.ndim != 4 or counts.shape[2] != 3 or 0 in counts.shape or counts.dtype.kind not in "iu":
            raise InputError(
                "Counts must be whole numbers (seeds, images, 3, classes), "
                f"got {counts.dtype} {counts.shape} of {name}."
            )
        if truth is None:
            truth = counts[0, :, 0]
        if counts.shape[1::2] != truth.shape or (counts[:, :, 0] != truth).any():
            raise InputError(
                f"All runs must be scored on the same images and classes, but the truth of {name} differs."
            )
        if counts.min() < 0 or (counts[:, :, 1] > np.minimum(counts[:, :, 0], counts[:, :, 2])).any():
            raise InputError(f"Right pixels must be among the true and the predicted ones, but are not for {name}.")
    if truth is None or not truth.any():
        raise InputError("A comparison needs at least one model and one pixel of truth.")
    images = len(truth)
    if groups is None:
        groups = np.arange(images)
    if len(groups) != images:
        raise InputError(f"Each image needs its group, got {images} images and {len(groups)} groups' names.")
    member = np.unique(np.asarray(groups), return_inverse=True)[1]
    if member.max() == 0:
        raise InputError(
            "An interval needs images of two groups or more, got one. Give no groups to draw each image alone; "
            "nothing is said about other drives then."
        )
    return arrays, member


def group_sums(counts, member):
    """Add up counts (S, n, 3, C) over the images of each group: (G, S, 3, C)."""
    order = np.argsort(member, kind="stable")
    starts = np.searchsorted(member[order], np.arange(member.max() + 1))
    return np.add.reduceat(counts.swapaxes(0, 1)[order], starts, axis=0)


def resampled_scores(models, member, resamples=RESAMPLES, seed=0, score=mean_iou):
    """Draw groups with replacement, the same for all models and runs, and score every run on each resample.

    Args:
        models: by name, counts (S, n, 3, C), or (S, n, ...) for another score. member: (n,), the group of each image.
        resamples: how many, R. seed: of the draws. score: counts added up over images, (..., 3, C) -> scores (...).
    Returns:
        dict of name -> (score on all images (S,), on the resamples (R, S)). Resamples without truth are left out.
    """
    check_whole("The number of resamples", resamples, 100)
    groups = member.max() + 1
    random = np.random.default_rng(seed)
    weights = random.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(float)
    results = {}
    for name, counts in models.items():
        sums = group_sums(counts, member).astype(float)
        drawn = (weights @ sums.reshape(groups, -1)).reshape(resamples, *sums.shape[1:])
        scores = score(drawn)
        results[name] = score(sums.sum(axis=0)), scores[~np.isnan(scores).any(axis=1)]
    return results


@dataclasses.dataclass(frozen=True)
class Groups:
    """How many groups of images there are, and how many equal ones would weigh like them.

    A class that few groups have, or one large group, makes the variance between resamples too small, as if there were
    fewer groups (Carter, Schnepel, Steigerwald 2017, "effective number of clusters"). For a class it is 1 over the sum
    of the groups' squared shares of its pixels; over the classes the harmonic mean, never below 2. Equal groups: their
    number.
    """

    count: int
    effective: float

    @classmethod
    def of(cls, counts: np.ndarray, member: np.ndarray) -> "Groups":
        """The groups of images with counts (S, n, 3, C), the first run's truth being everyone's."""
        truth = group_sums(counts[:1], member)[:, 0, 0].astype(float)  # (G, C)
        truth = truth[:, truth.any(axis=0)]
        squares = ((truth / truth.sum(axis=0)) ** 2).sum(axis=0)
        return cls(len(truth), max(float(1 / squares.mean()), 2.0))


def student():
    """Return SciPy's Student's t, imported when it is needed: it takes a second, and a refused command needs none."""
    from scipy import stats

    return stats.t


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A score or difference with its standard error, and the degrees of freedom of Student's t for its interval."""

    value: float
    error: float
    df: float
    level: float = LEVEL

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.value - self._half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self._half

    @functools.cached_property
    def _half(self):
        return float(student().ppf((1 + self.level) / 2, self.df)) * self.error

    def above(self, bound: float) -> float:
        """Return the one-sided p of "not above the bound"."""
        if self.error == 0:
            return float(self.value <= bound)
        return float(student().sf((self.value - bound) / self.error, self.df))

    @property
    def p(self) -> float:
        """Two-sided p of "no difference"."""
        if self.error == 0:
            return float(self.value == 0)
        return float(2 * student().sf(abs(self.value) / self.error, self.df))

    def p_equivalent(self, margin: float) -> float:
        """Return the p of two one-sided tests (Schuirmann 1987): small where the value lies within -margin..margin."""
        below = dataclasses.replace(self, value=-self.value)
        return max(self.above(-margin), below.above(-margin))


def combine(parts, groups, level=LEVEL):
    """Estimate a sum of mean scores over seeds from resamples of groups: the t interval.

    The variance is that of a two-way layout with random rows and columns, V = V_groups + V_seeds - V_both, each from
    its mean square (Cornfield and Tukey 1956), with Satterthwaite's degrees of freedom (1946). V_seeds is the variance
    of the runs' scores on all images, V_groups that of the mean score over resampled groups times G / (G - 1), G being
    the effective number, and V_both the part of the runs' spread that is there only within resamples. For a plain mean
    of balanced data they are the mean squares of an analysis of variance. 2,000 simulated studies of each size chose t
    over percentile and BCa intervals: docs/explanation/statistics.md has the table and says where t fails too.

    Args:
        parts: one (sign, scores (S,), resampled scores (R, S)) for each set of seeds: the model's own; for a difference
            with paired seeds the differences run by run; for unpaired seeds both models', signs +1 and -1.
        groups: Groups that were drawn. level: of the interval.
    Returns:
        Estimate. Of one run it knows no spread between seeds: the interval is then of this run alone.
    """
    value = sum(sign * whole.mean() for sign, whole, _ in parts)
    drawn = sum(sign * resampled.mean(axis=1) for sign, _, resampled in parts)
    unbiased = groups.effective / (groups.effective - 1)
    by_group = unbiased * drawn.var()
    by_seed = []
    both = []
    runs = []
    for _, whole, resampled in parts:
        if len(whole) > 1:
            spread = whole.var(ddof=1)
            within = resampled.var(axis=1, ddof=1).mean() - spread
            by_seed.append(spread / len(whole))
            both.append(unbiased * max(within, 0.0) / len(whole))
            runs.append(len(whole))
    variance, df = layout_variance(by_group, by_seed, both, groups.count, runs)
    return Estimate(float(value), float(np.sqrt(variance)), float(df), level)


def layout_variance(by_group, by_seed, both, groups, runs):
    """Return the variance of `combine` and its degrees of freedom; by_seed, both and runs have one item a set of seeds.

    No part is taken below 0: V_both is in V_groups and V_seeds, so each of these is at least V_both.
    """
    shared = sum(both)
    variance = shared + max(by_group - shared, 0.0)
    squares = by_group**2 / (groups - 1)
    for seeds, interaction, count in zip(by_seed, both, runs, strict=True):
        variance += max(seeds - interaction, 0.0)
        squares += seeds**2 / (count - 1) + interaction**2 / ((count - 1) * (groups - 1))
    if squares == 0:
        return variance, groups - 1
    return variance, max(variance**2 / squares, 1.0)


def partners(scores, pair, fixed, paired):
    """Return two models' scores as partners in a difference, and whether their runs count one by one.

    Args:
        scores: of `resampled_scores`. pair: names of two models. paired: run i of all models has the same seed.
        fixed: the models that were not trained; the one run of such a model is the partner of each run of the other.
    """
    runs = max(len(scores[name][0]) for name in pair)
    found = []
    for name in pair:
        whole, drawn = scores[name]
        if name in fixed:
            whole, drawn = np.repeat(whole, runs), np.repeat(drawn, runs, axis=1)
        found.append((whole, drawn))
    return found, paired or not set(pair).isdisjoint(fixed)


def score_interval(scores, groups, level=LEVEL):
    """Return the Estimate of one model's score; scores: its item of `resampled_scores`; groups: Groups."""
    whole, drawn = scores
    return combine([(1, whole, drawn)], groups, level)


def difference_interval(first, second, groups, *, paired, level=LEVEL):
    """Return the Estimate of first minus second, each an item of `resampled_scores`.

    Args:
        first, second: scores of two models. groups: Groups.
        paired: the runs share their seed one by one (same order of data), so that the differences run by run count.
        level: of the interval.
    Raises:
        InputError: paired runs of another number for each model.
    """
    if not paired:
        return combine([(1, *first), (-1, *second)], groups, level)
    check_paired(first[0], second[0])
    return combine([(1, first[0] - second[0], first[1] - second[1])], groups, level)


def check_paired(first, second):
    """Raise InputError unless two models have equally many runs."""
    if len(first) != len(second):
        raise InputError(
            f"Paired seeds must be the same for both models, got {len(first)} and {len(second)} runs. "
            "Leave out the runs without a partner, or compare unpaired."
        )
