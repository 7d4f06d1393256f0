"""How much does a difference of scores depend on the images? The paired bootstrap, by image or by group, in NumPy."""

import dataclasses

import numpy as np

from kseg.io.errors import InputError
from kseg.score_table import MICRO_SCORES, SCORES, ClassCounts

RESAMPLES = 10_000
LEVEL = 0.95  # share of the resamples in an interval
_CHUNK = 500  # resamples at a time: their weights are 8 bytes an image each


class ImageCounts:
    """What the scores of M models need from each image: 8 * (1 + 2 M) * C bytes, not M matrices of C * (C + 1) counts.

    For each image and class: the pixels of the truth and, for each model, those predicted correctly and all predicted.
    Memory grows with the number of images by no more than that: 760 bytes an image for two models and 19 classes.
    """

    def __init__(self):
        self._rows = []

    def add(self, matrices):
        """Add an image: its confusion matrix of each model, integers (M, C, C + 1), all of one truth."""
        matrices = np.asarray(matrices)
        truth = matrices.sum(axis=2)
        if (truth != truth[0]).any():
            raise InputError("The confusion matrices of an image must count the same truth, but their rows differ.")
        hits = np.diagonal(matrices, axis1=1, axis2=2)
        self._rows.append(np.concatenate([truth[:1], hits, matrices[:, :, :-1].sum(axis=1)]))

    def array(self):
        """Return int64 (n, 1 + 2 M, C): the truth's pixels, the M models' right ones, the M models' predicted ones."""
        return np.stack(self._rows)


@dataclasses.dataclass(frozen=True)
class Interval:
    """A difference, the percentile interval of its resamples, and the share of those in which it is above 0.

    A tie counts half. Resamples whose truth lacks the class in question are left out; all nan where nothing is left.
    """

    difference: float
    low: float
    high: float
    above: float

    @classmethod
    def of(cls, difference: float, resampled: np.ndarray) -> "Interval":
        """The interval of a difference from an array of resampled ones."""
        known = resampled[~np.isnan(resampled)]
        if not len(known) or np.isnan(difference):
            return cls(*[float("nan")] * 4)
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        above = np.mean(known > 0) + np.mean(known == 0) / 2
        return cls(float(difference), float(low), float(high), float(above))


def scores_of_counts(counts):
    """Return every score of M models from counts (..., 1 + 2 M, C) of `ImageCounts`, over the same classes for all.

    Those are the classes of the truth: a class that a single model predicts would otherwise be in the mean of that
    model alone. So a mean here is larger than `kseg.metrics.five_scores`' where a model predicts a class that the truth
    lacks.

    Returns:
        dict of float64 arrays (..., M), those of `kseg.score_table` by name; "per_class" (..., M, C): IoU.
    """
    models = (counts.shape[-2] - 1) // 2
    truth = counts[..., :1, :]
    hits = counts[..., 1 : 1 + models, :]
    found = ClassCounts(truth, hits, counts[..., 1 + models :, :], present=truth > 0)
    scores = {name: score.of(found) for name, score in (SCORES | MICRO_SCORES).items()}
    return {**scores, "per_class": found.five()["jaccard"]}


def resampled_sums(counts, resamples=RESAMPLES, seed=0):
    """Give sums over n rows drawn with replacement, in chunks: a row's weight is how often it was drawn.

    Args:
        counts: integers (n, ...), sums below 2**53. resamples: how many draws of n rows. seed: of the draws.
    Returns:
        iterator of float64 (at most 500, ...), whole numbers; `resamples` of them together.
    """
    counts = np.asarray(counts)
    rows = len(counts)
    random = np.random.default_rng(seed)
    flat = counts.reshape(rows, -1).astype(float)
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        weights = random.multinomial(rows, np.full(rows, 1 / rows), size=size)
        yield (weights.astype(float) @ flat).reshape(size, *counts.shape[1:])


def paired_bootstrap(counts, groups=None, *, resamples=RESAMPLES, seed=0):
    """Compare every model with the first on resampled images: each resample is the same images for all models.

    Percentile intervals (Efron 1979). The models are not trained again: the intervals show how much a difference
    depends on which images were sampled, not on the seed of a training run. Similar images (frames of one drive) make
    them too narrow; then resample whole groups.

    Args:
        counts: int64 (n, 1 + 2 M, C) of `ImageCounts`. groups: n names; images with one name are sampled together (a
            cluster bootstrap); None: each image alone.
    Returns:
        list of M - 1 dicts by score, as `scores_of_counts` names them: Interval of model minus first model; "per_class"
        is a list of C.
    Raises:
        ValueError: fewer than two models or another number of groups than images.
    """
    counts = np.asarray(counts)
    models = (counts.shape[1] - 1) // 2
    if models < 2 or (groups is not None and len(groups) != len(counts)):
        raise InputError(
            "A comparison needs two models or more and a group for each image, "
            f"got {models} models, {len(counts)} images and {len(groups or ())} groups."
        )
    whole = scores_of_counts(counts.sum(axis=0))
    if groups is not None:
        member = np.unique(groups, return_inverse=True)[1]
        counts = np.stack([counts[member == group].sum(axis=0) for group in range(member.max() + 1)])
    parts = [_differences(scores_of_counts(sums)) for sums in resampled_sums(counts, resamples, seed)]
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    found = _differences({name: score[None] for name, score in whole.items()})
    results = []
    for model in range(models - 1):
        result = {}
        for name in whole:
            values = found[name][0, model]
            all_drawn = drawn[name][:, model]
            columns = zip(np.atleast_1d(values), all_drawn.reshape(len(all_drawn), -1).T, strict=True)
            intervals = [Interval.of(value, column) for value, column in columns]
            result[name] = intervals
            if name != "per_class":
                result[name] = intervals[0]
        results.append(result)
    return results


def _differences(scores):
    """Every model but the first minus the first: (R, M, ...) -> (R, M - 1, ...)."""
    return {name: score[:, 1:] - score[:, :1] for name, score in scores.items()}
