"""Cityscapes' official scores (Cordts et al. 2016, section 4.2) in NumPy: class and category IoU and iIoU.

The numbers are those of the benchmark's own evaluator, cityscapesScripts, to the last bit on the same predictions: the
same counts, and every sum of floats in the same order.
"""

import dataclasses
import json
import math
import os
from typing import Any

import numpy as np

from kseg.data.datasets import cityscapes
from kseg.io.errors import InputError
from kseg.io.files import StrPath, write_atomic
from kseg.metrics.scores import check_complete
from kseg.score_table import ratio

_INFO = cityscapes.info()
NAMES = tuple(_INFO.id_names[i] for i in range(34))  # by regular id
CATEGORIES = {
    "void": range(7),
    "flat": range(7, 11),
    "construction": range(11, 17),
    "object": range(17, 21),
    "nature": range(21, 23),
    "sky": range(23, 24),
    "human": range(24, 26),
    "vehicle": range(26, 34),
}
# Mean pixels of an instance in Cityscapes' training set, as the benchmark fixes them, by regular id.
MEAN_SIZES = {
    24: 3462.4756337644,
    25: 3930.4788056518,
    26: 12794.0202738185,
    27: 27855.1264367816,
    28: 35732.1511111111,
    31: 67583.7075812274,
    32: 6298.7200839748,
    33: 4672.3249222261,
}
_CATEGORY_OF = {i: name for name in ("human", "vehicle") for i in CATEGORIES[name]}  # every class there has instances
_COUNT = len(NAMES)
_SCORED = tuple(i for i in range(_COUNT) if i not in _INFO.void_ids)
_NO_INSTANCE = 1000  # up to here an instance map holds the class alone: groups, and what has no instances


class CityscapesCounts:
    """Counts over any number of images in constant memory: `add` them in file-name order, then take `scores`.

    The order matters in the last bits only: the instance terms are sums of floats. `matrix`: int64 (34, 34), rows the
    truth, columns the prediction, both regular ids. `images`: how many were added.
    """

    def __init__(self):
        self.matrix = np.zeros((_COUNT, _COUNT), np.int64)
        self.images = 0
        names = (*(NAMES[i] for i in MEAN_SIZES), *_CATEGORY_OF.values())
        self._weighted = dict.fromkeys(names, (0.0, 0.0))  # TP and FN, weighted by the instance's size

    def add(self, prediction, label, instances):
        """Count one image.

        Args:
            prediction, label: integers (H, W), regular ids 0..33 (not training ids).
            instances: integers (H, W), class * 1000 + n where a pixel belongs to an instance, else below 1001.
        Raises:
            ValueError: the shapes differ, other ids, an instance of a class that has none. Nothing is counted then.
        """
        prediction, label, instances = map(np.asarray, (prediction, label, instances))
        if label.ndim != 2 or not prediction.shape == label.shape == instances.shape:
            shapes = ", ".join(str(array.shape) for array in (prediction, label, instances))
            raise InputError(f"Prediction, label and instance map must share one shape (H, W), got {shapes}.")
        _check_ids("Predictions must be regular ids", prediction, _COUNT - 1)
        _check_ids("Labels must be regular ids", label, _COUNT - 1)
        _check_ids("Instances must be ids", instances, 2**16 - 1)
        prediction, label, instances, pixels = _runs(prediction, label, instances)
        rows = _instance_rows(prediction, instances, pixels)
        self.matrix += _joint_counts(label, prediction, pixels, _COUNT)
        for class_id, row in rows:
            self._add_instance(class_id, row)
        self.images += 1

    def _add_instance(self, class_id, row):
        size = sum(row)
        weight = MEAN_SIZES[class_id] / size
        category = _CATEGORY_OF[class_id]
        for name, ids in ((NAMES[class_id], (class_id,)), (category, CATEGORIES[category])):
            hits = sum(row[i] for i in ids)
            found, missed = self._weighted[name]
            self._weighted[name] = found + hits * weight, missed + (size - hits) * weight

    def scores(self, expected_images=None):
        """Return `CityscapesScores` of the images so far; ValueError if there are none, or not the expected number."""
        check_complete(self.images, expected_images)
        classes = {name: (i,) for i, name in enumerate(NAMES)}
        return CityscapesScores(
            class_iou={name: self._iou(ids) for name, ids in classes.items()},
            class_iiou={name: self._iiou(name, ids) for name, ids in classes.items()},
            category_iou={name: self._iou(ids) for name, ids in CATEGORIES.items()},
            category_iiou={name: self._iiou(name, ids) for name, ids in CATEGORIES.items()},
            confusion_matrix=self.matrix.copy(),
            images=self.images,
        )

    def _iou(self, ids):
        scored = [i for i in ids if i in _SCORED]
        hits = int(self.matrix[np.ix_(scored, scored)].sum())
        missed = int(self.matrix[scored].sum()) - hits  # predictions of void ids among them
        return _ratio(hits, self._false_positives(ids, scored), missed)

    def _iiou(self, name, ids):
        if name not in self._weighted:
            return math.nan
        found, missed = self._weighted[name]
        return _ratio(found, self._false_positives(ids, list(ids)), missed)

    def _false_positives(self, ids, columns):
        """Pixels predicted as one of `columns` whose truth is scored and none of `ids`: unweighted for iIoU too."""
        rows = [i for i in _SCORED if i not in ids]
        return int(self.matrix[np.ix_(rows, columns)].sum())


def _check_ids(must, array, last):
    if array.dtype.kind not in "iu" or array.size == 0 or array.min() < 0 or array.max() > last:
        shown = f"of {array.min()}..{array.max()}" if array.size else "without a pixel"
        raise InputError(f"{must}, integers of 0..{last}, got {array.dtype} {shown}.")


def _runs(*maps):
    """Return the values of the maps at the start of each run along the rows in which none changes, and its pixels.

    Labels of streets have dozens of pixels per run, so counting runs is much less work than counting pixels.
    """
    maps = [array.ravel() for array in maps]
    starting = np.ones(maps[0].size, bool)
    np.not_equal(maps[0][1:], maps[0][:-1], out=starting[1:])
    for array in maps[1:]:
        starting[1:] |= array[1:] != array[:-1]
    starts = np.flatnonzero(starting)
    return *(array[starts] for array in maps), np.diff(starts, append=starting.size)


def _instance_rows(prediction, instances, pixels):
    """Return [(class id, [pixels by predicted id])] of every instance that counts, in the order of their ids."""
    inside = instances > _NO_INSTANCE
    ids = instances[inside]
    ranks = np.zeros(2**16, np.intp)
    present = np.flatnonzero(np.bincount(ids))
    ranks[present] = np.arange(len(present))
    counts = _joint_counts(ranks[ids], prediction[inside], pixels[inside], len(present))
    rows = [(i // 1000, row) for i, row in zip(present.tolist(), counts.tolist(), strict=True)]
    without_size = sorted({i for i, _ in rows if i not in MEAN_SIZES and i not in _INFO.void_ids})
    if without_size:
        known = ", ".join(NAMES[i] for i in MEAN_SIZES)
        raise InputError(
            f"Only {known} have instances (class * 1000 + n), but this map has some of class id {without_size[0]}."
        )
    return [(i, row) for i, row in rows if i in MEAN_SIZES]


def _joint_counts(rows, predicted, pixels, count):
    """Pixels by row and predicted regular id: int64 (count, 34), of runs."""
    codes = rows.astype(np.intp) * _COUNT + predicted
    sums = np.bincount(codes, weights=pixels, minlength=count * _COUNT)  # float64: whole numbers, exact
    return sums.astype(np.int64).reshape(count, _COUNT)


def _ratio(hits, false_positives, missed):
    return ratio(hits, hits + false_positives + missed)  # in this order: two of them are floats in iIoU


def _average(scores):
    """Mean of what is not nan, added one by one: `np.sum`, and `sum` from Python 3.12 on, round otherwise."""
    total = 0.0
    valid = [score for score in scores.values() if not math.isnan(score)]
    for score in valid:
        total += score
    return ratio(total, len(valid))


@dataclasses.dataclass(frozen=True, eq=False)
class CityscapesScores:
    """Cityscapes' official scores; `str()` is the table, `to_json` the evaluator's own file.

    Each is a dict by name, nan for what has no score: ignored classes, classes without instances (iIoU), and what is
    neither in the truth nor predicted. iIoU weights a pixel of an instance by its class' mean size / the instance's
    size. The means leave nan out. `confusion_matrix`: int64 (34, 34) of regular ids, rows the truth.
    """

    class_iou: dict[str, float]
    class_iiou: dict[str, float]
    category_iou: dict[str, float]
    category_iiou: dict[str, float]
    confusion_matrix: np.ndarray
    images: int
    protocol = "cityscapes"

    @property
    def mean_iou(self) -> float:
        """Mean class IoU, the number that the benchmark is ranked by (averageScoreClasses)."""
        return _average(self.class_iou)

    @property
    def mean_iiou(self) -> float:
        """Mean class iIoU (averageScoreInstClasses)."""
        return _average(self.class_iiou)

    @property
    def mean_category_iou(self) -> float:
        """Mean category IoU (averageScoreCategories)."""
        return _average(self.category_iou)

    @property
    def mean_category_iiou(self) -> float:
        """Mean category iIoU (averageScoreInstCategories)."""
        return _average(self.category_iiou)

    def official(self) -> dict[str, Any]:
        """Return everything as the dict that cityscapesScripts writes: classScores, averageScoreClasses, ..."""
        rows = self.confusion_matrix.sum(1).tolist()
        total = int(self.confusion_matrix.sum())
        return {
            "confMatrix": self.confusion_matrix.tolist(),
            "priors": {name: row / total for name, row in zip(NAMES, rows, strict=True)},
            "labels": {name: i for i, name in enumerate(NAMES)},
            "classScores": self.class_iou,
            "classInstScores": self.class_iiou,
            "categoryScores": self.category_iou,
            "categoryInstScores": self.category_iiou,
            "averageScoreClasses": self.mean_iou,
            "averageScoreInstClasses": self.mean_iiou,
            "averageScoreCategories": self.mean_category_iou,
            "averageScoreInstCategories": self.mean_category_iiou,
        }

    def to_json(self, path: StrPath) -> None:
        """Write `official()` as cityscapesScripts does, nan as a bare NaN; completely or not at all."""
        write_atomic(os.fspath(path), json.dumps(self.official(), sort_keys=True, indent=4).encode())

    def __str__(self):
        classes = {NAMES[i]: (self.class_iou[NAMES[i]], self.class_iiou[NAMES[i]]) for i in _SCORED}
        categories = {c: (self.category_iou[c], self.category_iiou[c]) for c in CATEGORIES if c != "void"}
        lines = []
        for title, rows, means in (
            ("class", classes, (self.mean_iou, self.mean_iiou)),
            ("category", categories, (self.mean_category_iou, self.mean_category_iiou)),
        ):
            lines.append(f"{title:<14}{'IoU':>9}{'iIoU':>9}")
            for name, pair in (rows | {"mean": means}).items():
                shown = [f"{score:9.4f}".replace("nan", "  -") for score in pair]
                lines.append(f"{name:<14}{''.join(shown)}")
            iou, iiou = (sum(not math.isnan(pair[i]) for pair in rows.values()) for i in (0, 1))
            lines += [f"IoU over {iou} of {len(rows)}, iIoU over {iiou}", ""]
        return "\n".join([*lines, f"{self.images}/{self.images} images, protocol {self.protocol}"])
