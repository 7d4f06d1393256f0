"""The table of scores: a score is one entry, from which tables, history, --best_by, bootstrap and page follow.

Every score is computed from the counts of a confusion matrix (`ClassCounts`). Only the functions import NumPy: the
settings take the names from here, and --help loads no NumPy.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

SCORE_NAMES = ("accuracy", "sensitivity", "specificity", "f1", "jaccard")
GROUP_SCORES = ("mean_iou", "pixel_accuracy", "sensitivity", "specificity", "f1")  # of a group, in tables


def ratio(part, whole):
    """Return part / whole of two numbers; nan where the whole is 0: there is nothing to score."""
    if not whole:
        return math.nan
    return part / whole


def five_of_counts(tp, fn, fp, tn, average=None, xp=None, present=None):
    """`kseg.metrics.five_scores` of counts (..., C), floats: arrays (..., C), or (...) with an average.

    xp: keras.ops; None is NumPy. present: bool (..., C), the classes to score; None is those in truth or prediction.
    """
    if xp is None:
        import numpy as xp
    # A class absent from truth and prediction has nothing to score: its accuracy of 1 must not lift a mean.
    if present is None:
        present = (tp + fn + fp) > 0
    if average == "micro":
        tp, fn, fp, tn = (xp.sum(n, axis=-1) for n in (tp, fn, fp, tn))
    five = {
        "accuracy": (tp + tn) / (tp + fn + fp + tn),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "jaccard": tp / (tp + fp + fn),
    }
    if average == "micro":
        return five
    five = {name: xp.where(present, score, math.nan) for name, score in five.items()}
    if average is None:
        return five
    kept = {name: xp.where(xp.isnan(score), 0.0, 1.0) for name, score in five.items()}
    return {n: xp.sum(xp.where(kept[n] > 0, five[n], 0.0), axis=-1) / xp.sum(kept[n], axis=-1) for n in five}


class ClassCounts:
    """Pixels of each class, whole numbers (..., C): in the truth, predicted correctly, and predicted.

    pixels: (...), all that are counted; those predicted outside the classes are in no class' `predicted`.
    present: bool (..., C), the classes that means are over; None is those in truth or prediction.
    """

    def __init__(self, truth, hits, predicted, present=None):
        self.truth = truth.astype(float)
        self.hits = hits.astype(float)
        self.predicted = predicted.astype(float)
        self.pixels = self.truth.sum(axis=-1)
        self._present = present
        self._five = {}

    @classmethod
    def of_matrix(cls, matrix):
        """The counts of a confusion matrix (C, C + 1)."""
        return cls(matrix.sum(axis=1), matrix.diagonal(), matrix[:, :-1].sum(axis=0))

    def five(self, average=None):
        """Return the five scores by name, each class against the rest; `average` as in `kseg.metrics.five_scores`."""
        import numpy as np

        if average not in self._five:
            missed = self.truth - self.hits
            wrong = self.predicted - self.hits
            rest = self.pixels[..., None] - self.hits - missed - wrong
            with np.errstate(invalid="ignore"):
                found = five_of_counts(self.hits, missed, wrong, rest, average, present=self._present)
            self._five[average] = found
        return self._five[average]


@dataclasses.dataclass(frozen=True)
class Score:
    """A score: its title in tables, and what gives it, (...), of ClassCounts (..., C); nan where there is none."""

    title: str
    of: Callable[[ClassCounts], Any]


def _mean(name):
    return lambda counts: counts.five("macro")[name]


def _sum(name):
    return lambda counts: counts.five("micro")[name]


def _frequency_weighted_iou(counts):
    import numpy as np

    iou = np.nan_to_num(counts.five()["jaccard"])
    weighted = np.matmul(counts.truth[..., None, :], iou[..., None])[..., 0, 0]
    with np.errstate(invalid="ignore"):
        return weighted / counts.pixels


# Of every validation, in the order of history.csv, and of comparisons. The names are the choices of --best_by.
SCORES = {
    "mean_iou": Score("mean IoU (macro Jaccard)", _mean("jaccard")),
    "pixel_accuracy": Score("pixel accuracy", _sum("sensitivity")),  # micro F1 is the same
    "accuracy": Score("accuracy, macro", _mean("accuracy")),
    "sensitivity": Score("sensitivity, macro", _mean("sensitivity")),
    "specificity": Score("specificity, macro", _mean("specificity")),
    "f1": Score("F1, macro", _mean("f1")),
    "jaccard": Score("Jaccard, macro", _mean("jaccard")),
    "frequency_weighted_iou": Score("frequency-weighted IoU", _frequency_weighted_iou),
}
# Of comparisons alone.
MICRO_SCORES = {
    "micro_accuracy": Score("accuracy, micro", _sum("accuracy")),
    "micro_specificity": Score("specificity, micro", _sum("specificity")),
    "micro_jaccard": Score("Jaccard, micro", _sum("jaccard")),
}
