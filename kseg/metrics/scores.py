"""Scores of semantic segmentation: everything derives from one int64 confusion matrix.

The matrix has shape (C, C + 1): rows are the truth, columns the prediction, the last column counts predictions outside
the C classes (a FN of the true class, a FP of none). Its sum is N, the valid pixels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kseg.data.groups import FEW
from kseg.io.errors import InputError
from kseg.io.files import StrPath, checked_path, reading, write_json
from kseg.io.text import count_text
from kseg.metrics.confusion import confusion_matrix
from kseg.score_table import GROUP_SCORES, SCORE_NAMES, SCORES, ClassCounts


def check_complete(images, expected=None):
    """Raise ValueError unless there are images, and as many as expected where that is known."""
    if not images and not expected:
        raise InputError("There must be at least one image to score, got 0.")
    if expected not in (None, images):
        raise InputError(f"Every image must be scored: expected {expected}, got {images}.")


class ImageMeans:
    """Means over images of each image's macro scores; a score that an image lacks (no such class in it) is left out."""

    def __init__(self):
        self._sums = np.zeros(len(SCORE_NAMES))
        self._counts = np.zeros(len(SCORE_NAMES), np.int64)

    def update(self, matrix):
        """Add the confusion matrix of one image."""
        scores = five_scores(matrix, "macro")
        values = np.array([scores[name] for name in SCORE_NAMES])
        self._sums += np.nan_to_num(values)
        self._counts += ~np.isnan(values)

    def result(self):
        """Return the means by name; nan where no image has one."""
        with np.errstate(invalid="ignore"):
            return dict(zip(SCORE_NAMES, (self._sums / self._counts).tolist(), strict=True))


def five_scores(matrix: np.ndarray, average: str | None = None) -> dict[str, Any]:
    """The five scores by name, one class against the rest, float64.

    With TP, FN = row - TP, FP = column - TP and TN = N - TP - FN - FP: accuracy (TP+TN)/N, sensitivity TP/(TP+FN),
    specificity TN/(TN+FP), f1 2TP/(2TP+FP+FN), jaccard TP/(TP+FP+FN). 0/0 is nan, and so are all five for a class
    absent from truth and prediction. `matrix`: integers (C, C + 1) or (C, C). `average`: None for arrays (C,), "macro"
    for means without nan (jaccard: mean IoU), "micro" for sums of TP, FN, FP, TN (sensitivity: pixel accuracy).
    """
    if average not in (None, "macro", "micro"):
        raise InputError(f'average must be None, "macro" or "micro", got {average!r}.')
    scores = ClassCounts.of_matrix(_checked(matrix)).five(average)
    if average is None:
        return scores
    return {name: float(score) for name, score in scores.items()}


def _checked(matrix):
    matrix = np.asarray(matrix)
    fits = matrix.ndim == 2 and len(matrix) and matrix.shape[1] - len(matrix) in (0, 1)
    if not fits or matrix.dtype.kind not in "iu" or (matrix < 0).any():
        raise InputError(f"Need counts of shape (C, C + 1) or (C, C), got {matrix.dtype} {matrix.shape}.")
    return np.pad(matrix.astype(np.int64), ((0, 0), (0, len(matrix) + 1 - matrix.shape[1])))


def count_of_classes(some, classes):
    """Return how many of the classes `some` are, with the names of the fewer, those in or those left out.

    "all 19 classes", "18 of 19 classes (without train)", "2 of 19 classes (road, sky)".
    """
    without = [name for name in classes if name not in some]
    if not without:
        return f"all {len(classes)} classes"
    names = ", ".join(some)
    if len(without) <= len(some):
        names = f"without {', '.join(without)}"
    return f"{len(some)} of {len(classes)} classes ({names or 'none'})"


# Of `Scores`: what older files lack.
_DEFAULTS = {"protocol", "frequency_weighted_iou", "per_image", "split", "group_by", "groups", "epoch", "step", "reads"}


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What an evaluation found; `str()` is the table, `to_json` the file. What cannot be scored is nan.

    The five are macro means; `micro` is by name, `per_class` by class and name, `per_image` by name, means over images
    of each one's macro means ({}: not taken). `frequency_weighted_iou`: sum of (n_c / N) * IoU_c. `confusion_matrix`:
    int64 (C, C + 1). `out_of_range` pixels, with a label neither a class nor ignored, are in no score.
    `scored_classes`: those in truth or prediction, which the means are over; one that is only predicted has IoU 0.
    `groups`: name -> "images" and every score of the images of that group, over the classes in its own truth or
    predictions; `group_by`: what made them, "drive", "block:25" or a regular expression ({} and "": not asked for).
    `split`: which part of the records was scored ("": no records). `epoch`, `step`: of the run whose weights were
    scored at its end, counted from 1; None for any other scores, and then not in the file. `reads`: what the model was
    and which runtime computed it, in words ("Keras", "ONNX from kseg"); None, and not in the file, if nobody said.
    """

    accuracy: float
    sensitivity: float
    specificity: float
    f1: float
    jaccard: float
    micro: dict[str, float]
    per_class: dict[str, dict[str, float]]
    mean_iou: float
    pixel_accuracy: float
    confusion_matrix: np.ndarray
    images: int
    expected_images: int
    out_of_range: int
    classes: tuple[str, ...]
    protocol: str = "standard"
    frequency_weighted_iou: float = float("nan")
    per_image: dict[str, float] = dataclasses.field(default_factory=dict)
    split: str = ""
    group_by: str = ""
    groups: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    epoch: int | None = None
    step: int | None = None
    reads: str | None = None

    @classmethod
    def from_confusion_matrix(
        cls,
        matrix: np.ndarray,
        classes: Iterable[str],
        images: int,
        out_of_range: int = 0,
        expected_images: int | None = None,
        per_image: dict[str, float] | None = None,
    ) -> Scores:
        """Derives all but `per_image` from a matrix (C, C + 1) or (C, C) and C different class names."""
        matrix = _checked(matrix)
        classes = tuple(classes)
        if not len(set(classes)) == len(classes) == len(matrix):
            raise InputError(f"{len(matrix)} classes need as many different names, got {classes}.")
        if expected_images is None:
            expected_images = images
        counts = ClassCounts.of_matrix(matrix)
        each = counts.five()
        return cls(
            **five_scores(matrix, "macro"),
            micro=five_scores(matrix, "micro"),
            per_class={c: {name: float(each[name][i]) for name in each} for i, c in enumerate(classes)},
            mean_iou=float(SCORES["mean_iou"].of(counts)),
            pixel_accuracy=float(SCORES["pixel_accuracy"].of(counts)),
            frequency_weighted_iou=float(SCORES["frequency_weighted_iou"].of(counts)),
            per_image=per_image or {},
            confusion_matrix=matrix,
            images=int(images),
            expected_images=int(expected_images),
            out_of_range=int(out_of_range),
            classes=classes,
        )

    def values(self) -> dict[str, float]:
        """Return every score of the table (`kseg.score_table.SCORES`) by name."""
        counts = ClassCounts.of_matrix(self.confusion_matrix)
        return {name: float(score.of(counts)) for name, score in SCORES.items()}

    @property
    def scored_classes(self) -> tuple[str, ...]:
        """The names of the classes that occur in truth or prediction."""
        counts = self.confusion_matrix
        found = counts.sum(axis=1) + counts[:, :-1].sum(axis=0) > 0
        return tuple(name for name, there in zip(self.classes, found, strict=True) if there)

    def __str__(self):
        rows = {"macro": {name: getattr(self, name) for name in SCORE_NAMES}, "micro": self.micro}
        if self.per_image:
            rows["per image"] = self.per_image
        width = max(len(name) for name in (*rows, *self.classes))
        lines = [" " * width + "".join(f"{name:>13}" for name in SCORE_NAMES)]
        for title, row in [*rows.items(), *self.per_class.items()]:
            values = "".join(f"{row[name]:13.4f}".replace("nan", "  -") for name in SCORE_NAMES)
            lines.append(f"{title:<{width}}{values}")
        scored = count_of_classes(self.scored_classes, self.classes)
        lines.append(f"mean IoU {self.mean_iou:.4f} over {scored}")
        values = self.values()
        rest = [name for name in reversed(values) if name not in (*SCORE_NAMES, "mean_iou")]  # those have had a place
        means = ", ".join(f"{SCORES[name].title} {values[name]:.4f}" for name in rest)
        images = f"{self.images}/{self.expected_images} images" + (f" of split {self.split}" if self.split else "")
        lines.append(f"{means}, {images}, protocol {self.protocol}")
        labelled = dict(zip(self.classes, self.confusion_matrix.sum(axis=1), strict=True))
        if predicted_alone := [name for name in self.scored_classes if not labelled[name]]:
            lines.append(f"Predicted but in no label, so IoU 0: {', '.join(predicted_alone)}")
        if self.out_of_range:
            lines.append(f"WARNING: {self.out_of_range} pixels have a label that is neither a class nor void.")
        return "\n".join([*lines, *self._group_lines()])

    def _group_lines(self):
        """The table of the groups, after a blank line; none where there are none."""
        if not self.groups:
            return []
        head = f"by {self.group_by} ({len(self.groups)})"
        width = max(len(name) for name in (head, *self.groups))
        lines = ["", f"{head:<{width}}{'images':>8}" + "".join(f"{name:>16}" for name in GROUP_SCORES)]
        for title, row in self.groups.items():
            values = "".join(f"{row[name]:16.4f}".replace("nan", "  -") for name in GROUP_SCORES)
            lines.append(f"{title:<{width}}{row['images']:>8}{values}")
        lines.append("Means of a group are over the classes in its own labels or predictions.")
        if len(self.groups) < FEW:
            lines.append(f"{count_text(len(self.groups), 'group')}: too few to say how others would score.")
        return lines

    def to_json(self, path: StrPath) -> None:
        """Writes one object with the attributes' names as keys, nan as null; completely or not at all."""
        table = {name: value for name, value in vars(self).items() if value is not None}
        table["scored_classes"] = self.scored_classes
        table |= {name: value for name, value in self.values().items() if name not in table}
        table["confusion_matrix"] = self.confusion_matrix.tolist()
        write_json(path, table)

    @classmethod
    def from_json(cls, path: StrPath) -> Scores:
        """Reads what `to_json` wrote; ValueError for any other file."""
        path = Path(checked_path(path, "path"))
        nan = float("nan")
        must = f"{path} must be a table of scores that kseg wrote"
        with reading(path):
            content = path.read_bytes()
        try:
            table = json.loads(content, object_hook=lambda d: {k: nan if d[k] is None else d[k] for k in d})
        except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, brackets without end
            raise InputError(f"{must}: {error}.") from error
        if not isinstance(table, dict):
            table = {}
        table.pop("scored_classes", None)  # older files lack it; the matrix says it
        known = {field.name for field in dataclasses.fields(cls)}
        table = {name: value for name, value in table.items() if name in known or name not in SCORES}
        wrong = {
            "lacks": known - set(table) - _DEFAULTS,
            "must not have": set(table) - known,
        }
        for verb, names in wrong.items():
            if names:
                raise InputError(f"{must}, but it {verb} {', '.join(sorted(names))}.")
        if not isinstance(table["classes"], list) or not isinstance(table["confusion_matrix"], list):
            raise InputError(f"{must}: its classes and confusion_matrix must be lists.")
        try:
            matrix = np.array(table["confusion_matrix"])
        except ValueError as error:  # NumPy's own, of rows of several lengths
            raise InputError(f"{must}: {error}.") from error
        table |= {"confusion_matrix": _checked(matrix), "classes": tuple(table["classes"])}
        return cls(**table)


class ScoreCounts:
    """Counts over any number of images in constant memory: `add` each, then take `scores`.

    Args:
        classes: their names. groups: `kseg.data.groups.Groups` of the images in the order in which they come, to score
            each group too; None for none. split: of the records, for `Scores.split`.
    """

    def __init__(self, classes, groups=None, split=""):
        self.classes = tuple(classes)
        self.images = 0
        self._split = split
        self._groups = groups
        self._of_group = {}  # name -> [images, confusion matrix]
        self._matrix = np.zeros((len(self.classes), len(self.classes) + 1), np.int64)
        self._out_of_range = 0
        self._means = ImageMeans()

    def add(self, truth, prediction):
        """Count an image, class ids (H, W) twice, and return its own confusion matrix."""
        matrix, out_of_range = confusion_matrix(truth, prediction, len(self.classes))
        self._means.update(matrix)
        self._matrix += matrix
        if self._groups is not None:
            counted = self._of_group.setdefault(self._groups.of[self.images], [0, np.zeros_like(self._matrix)])
            counted[0] += 1
            counted[1] += matrix
        self._out_of_range += out_of_range
        self.images += 1
        return matrix

    def scores(self, expected_images=None):
        """Return `Scores` of the images so far; ValueError if there are none, or not the expected number."""
        check_complete(self.images, expected_images)
        scores = Scores.from_confusion_matrix(
            self._matrix,
            self.classes,
            self.images,
            self._out_of_range,
            expected_images,
            self._means.result(),
        )
        groups = {}
        for name, (images, matrix) in self._of_group.items():
            counts = ClassCounts.of_matrix(matrix)
            groups[name] = {"images": images} | {title: float(score.of(counts)) for title, score in SCORES.items()}
        group_by = "" if self._groups is None else self._groups.by
        return dataclasses.replace(scores, split=self._split, group_by=group_by, groups=groups)
