"""Scores of semantic segmentation: everything derives from one int64 confusion matrix.

The matrix has shape (C, C + 1): rows are the truth, columns the prediction, the last column counts predictions outside
the C classes (a FN of the true class, a FP of none). Its sum is N, the valid pixels.
"""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
from keras import ops

from kseg.data.files import write_atomic
from kseg.errors import InputError

SCORE_NAMES = ("accuracy", "sensitivity", "specificity", "f1", "jaccard")
_LIMB = 2**30  # JAX has no int64 by default: there a count is high * 2**30 + low, both int32


def confusion_matrix(labels, predictions, num_classes, ignore_label=255):
    """Counts pairs of (truth, prediction) over the valid pixels, in NumPy.

    Args:
        labels: integers of any shape; valid where in [0, num_classes) and not `ignore_label`.
        predictions: integer class ids of the same shape; one outside the classes goes to the last column.
    Returns:
        (matrix, out_of_range): int64 (C, C + 1); the count of labels neither a class nor `ignore_label`.
    Raises:
        ValueError: the shapes differ, or either array does not hold integers.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise InputError(f"Predictions must have the labels' shape {labels.shape}, got {predictions.shape}.")
    if labels.dtype.kind not in "iu" or predictions.dtype.kind not in "iu":
        raise InputError(f"Class ids must be integers, got {labels.dtype}, {predictions.dtype}. Cast them.")
    if labels.dtype == np.uint8 and num_classes < 256:
        return _byte_matrix(labels, predictions, num_classes, ignore_label)
    counted = labels != ignore_label
    valid = counted & (labels >= 0) & (labels < num_classes)
    truth, predicted = labels[valid].astype(np.int64), predictions[valid].astype(np.int64)
    predicted[(predicted < 0) | (predicted >= num_classes)] = num_classes
    columns = num_classes + 1
    cells = np.bincount(truth * columns + predicted, minlength=num_classes * columns)
    return cells.reshape(num_classes, columns), int(np.count_nonzero(counted)) - truth.size


def _byte_matrix(labels, predictions, num_classes, ignore_label):
    """The same for labels of one byte: a pair is a number of two, of which there are so few that all are counted."""
    if predictions.dtype != np.uint8:
        inside = (predictions >= 0) & (predictions < num_classes)
        predictions = np.where(inside, predictions, num_classes).astype(np.uint8)
    pairs = labels.astype(np.uint16) << 8 | predictions
    counts = np.bincount(pairs.ravel(), minlength=2**16).reshape(256, 256)
    if 0 <= ignore_label < 256:
        counts[ignore_label] = 0
    rows = counts[:num_classes]
    outside = rows[:, num_classes:].sum(axis=1, keepdims=True)
    return np.hstack([rows[:, :num_classes], outside]), int(counts[num_classes:].sum())


def batch_confusion_matrix(labels, predictions, num_classes, ignore_label=255):
    """Counts pairs of (truth, prediction) with `keras.ops`; compiles under XLA, sizes may be dynamic.

    Args:
        labels: integers (B, H, W).
        predictions: logits (B, H, W, K), of which the first maximum counts, or class ids (B, H, W).
    Returns:
        int32 (C + 1, C + 1), cells below 2**30: the module's matrix, then a row of labels neither class nor ignored.
    Raises: ValueError where the shapes do not fit each other.
    """
    labels, predictions = ops.cast(labels, "int32"), ops.convert_to_tensor(predictions)
    is_logits = len(predictions.shape) == len(labels.shape) + 1
    wanted, given = tuple(labels.shape), tuple(predictions.shape)[: -1 if is_logits else None]
    if len(wanted) != len(given) or any(a != b for a, b in zip(wanted, given, strict=True) if a and b):
        raise InputError(f"Need labels (B, H, W), logits (B, H, W, C) or ids, got {wanted}, {(*predictions.shape,)}.")
    if is_logits and keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # Keras' argmax tells -0.0 from 0.0, at four times the price without XLA

        predictions, is_logits = tf.argmax(predictions, axis=-1, output_type=tf.int32), False
    predicted = ops.cast(ops.argmax(predictions, axis=-1) if is_logits else predictions, "int32")
    size = num_classes + 1  # the last row and column: outside the classes
    truth = ops.where((labels >= 0) & (labels < num_classes), labels, num_classes)
    predicted = ops.where((predicted >= 0) & (predicted < num_classes), predicted, num_classes)
    # An ignored pixel adds 0 to some cell: nothing is taken out, for XLA wants static shapes.
    weight = ops.reshape(ops.cast(ops.not_equal(labels, ignore_label), "int32"), (-1,))
    cells = ops.segment_sum(weight, ops.reshape(truth * size + predicted, (-1,)), num_segments=size * size)
    return ops.reshape(cells, (size, size))


def _five(matrix, average, xp):  # xp: numpy (float64) or keras.ops (float32)
    tp = xp.sum(xp.where(xp.eye(matrix.shape[0], dtype="bool"), matrix[:, :-1], 0), axis=1)
    fn, fp = xp.sum(matrix, axis=1) - tp, xp.sum(matrix[:, :-1], axis=0) - tp
    return five_of_counts(tp, fn, fp, xp.sum(matrix) - tp - fn - fp, average, xp)


def five_of_counts(tp, fn, fp, tn, average=None, xp=np):
    """`five_scores` of counts (..., C): arrays (..., C), or (...) with an average."""
    # A class absent from truth and prediction has nothing to score: its accuracy of 1 must not lift a mean.
    present = (tp + fn + fp) > 0
    four = (ops.cast(n, "float32") if xp is ops else n.astype(float) for n in (tp, fn, fp, tn))
    tp, fn, fp, tn = (xp.sum(n, axis=-1) if average == "micro" else n for n in four)
    five = {
        "accuracy": (tp + tn) / (tp + fn + fp + tn),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "jaccard": tp / (tp + fp + fn),
    }
    if average != "micro":
        five = {name: xp.where(present, score, np.nan) for name, score in five.items()}
    if average != "macro":
        return five
    kept = {name: xp.where(xp.isnan(score), 0.0, 1.0) for name, score in five.items()}
    return {n: xp.sum(xp.where(kept[n] > 0, five[n], 0.0), axis=-1) / xp.sum(kept[n], axis=-1) for n in five}


def five_scores(matrix, average=None):
    """The five scores by name, one class against the rest, float64.

    With TP, FN = row - TP, FP = column - TP and TN = N - TP - FN - FP: accuracy (TP+TN)/N, sensitivity TP/(TP+FN),
    specificity TN/(TN+FP), f1 2TP/(2TP+FP+FN), jaccard TP/(TP+FP+FN). 0/0 is nan, and so are all five for a class
    absent from truth and prediction. `matrix`: integers (C, C + 1) or (C, C). `average`: None for arrays (C,), "macro"
    for means without nan (jaccard: mean IoU), "micro" for sums of TP, FN, FP, TN (sensitivity: pixel accuracy).
    """
    if average not in (None, "macro", "micro"):
        raise InputError(f'average must be None, "macro" or "micro", got {average!r}.')
    with np.errstate(invalid="ignore"):
        scores = _five(_checked(matrix), average, np)
    return {name: float(score) for name, score in scores.items()} if average else scores


def _checked(matrix):
    matrix = np.asarray(matrix)
    fits = matrix.ndim == 2 and len(matrix) and matrix.shape[1] - len(matrix) in (0, 1)
    if not fits or matrix.dtype.kind not in "iu" or (matrix < 0).any():
        raise InputError(f"Need counts of shape (C, C + 1) or (C, C), got {matrix.dtype} {matrix.shape}.")
    return np.pad(matrix.astype(np.int64), ((0, 0), (0, len(matrix) + 1 - matrix.shape[1])))


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What an evaluation found; `str()` is the table, `to_json` the file. What cannot be scored is nan.

    The five are macro means; `micro` is by name, `per_class` by class and name, `per_image` by name, means over images
    of each one's macro means ({}: not taken). `frequency_weighted_iou`: sum of (n_c / N) * IoU_c. `confusion_matrix`:
    int64 (C, C + 1). `out_of_range` pixels, with a label neither a class nor ignored, are in no score.
    """

    accuracy: float
    sensitivity: float
    specificity: float
    f1: float
    jaccard: float
    micro: dict
    per_class: dict
    mean_iou: float
    pixel_accuracy: float
    confusion_matrix: np.ndarray
    images: int
    expected_images: int
    out_of_range: int
    classes: tuple
    protocol: str = "standard"
    frequency_weighted_iou: float = float("nan")
    per_image: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def from_confusion_matrix(cls, matrix, classes, images, out_of_range=0, expected_images=None, per_image=None):
        """Derives all but `per_image` from a matrix (C, C + 1) or (C, C) and C different class names."""
        matrix, classes = _checked(matrix), tuple(classes)
        if not len(set(classes)) == len(classes) == len(matrix):
            raise InputError(f"{len(matrix)} classes need as many different names, got {classes}.")
        each, macro, micro = (five_scores(matrix, average) for average in (None, "macro", "micro"))
        return cls(
            **macro,
            micro=micro,
            per_class={c: {name: float(each[name][i]) for name in each} for i, c in enumerate(classes)},
            **{"mean_iou": macro["jaccard"], "pixel_accuracy": micro["sensitivity"], "per_image": per_image or {}},
            confusion_matrix=matrix,
            expected_images=int(images if expected_images is None else expected_images),
            frequency_weighted_iou=float(matrix.sum(1) @ np.nan_to_num(each["jaccard"]) / (matrix.sum() or np.nan)),
            **{"images": int(images), "out_of_range": int(out_of_range), "classes": classes},
        )

    def __str__(self):
        rows = {"macro": {name: getattr(self, name) for name in SCORE_NAMES}, "micro": self.micro}
        rows |= {"per image": self.per_image} if self.per_image else {}
        width = max(len(name) for name in (*rows, *self.classes))
        lines = [" " * width + "".join(f"{name:>13}" for name in SCORE_NAMES)]
        for title, row in [*rows.items(), *self.per_class.items()]:
            values = "".join(f"{row[name]:13.4f}".replace("nan", "  -") for name in SCORE_NAMES)
            lines.append(f"{title:<{width}}{values}")
        means = f"mean IoU {self.mean_iou:.4f}, frequency-weighted IoU {self.frequency_weighted_iou:.4f}"
        images = f"{self.images}/{self.expected_images} images, protocol {self.protocol}"
        lines.append(f"{means}, pixel accuracy {self.pixel_accuracy:.4f}, {images}")
        warning = f"WARNING: {self.out_of_range} pixels have a label neither a class nor ignored."
        return "\n".join([*lines, warning] if self.out_of_range else lines)

    def to_json(self, path):
        """Writes one object with the attributes' names as keys, nan as null; whole or not at all."""
        path, table = Path(path), {**vars(self), "confusion_matrix": self.confusion_matrix.tolist()}
        table = json.loads(json.dumps(table), parse_constant=lambda nan: None)
        write_atomic(path, json.dumps(table, indent=1).encode())

    @classmethod
    def from_json(cls, path):
        """Reads what `to_json` wrote; ValueError for any other file."""
        try:
            text, nan = Path(path).read_text(encoding="utf-8"), float("nan")
            table = json.loads(text, object_hook=lambda d: {k: nan if d[k] is None else d[k] for k in d})
            table["confusion_matrix"] = _checked(table["confusion_matrix"])
            return cls(**{**table, "classes": tuple(table["classes"])})
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} must be a table of scores that kseg wrote: {error!r}.") from error


@keras.saving.register_keras_serializable(package="kseg")
class SegmentationScores(keras.metrics.Metric):
    """Keras metric of one variable; `result()` is a float32 dict of the five scores and `mean_iou`.

    `fit` shows them under their own names (`mean_iou`, `val_mean_iou`). The counts are exact: int64, or under
    JAX pairs of int32 with 60 bits; so are `matrix()` and `scores()`. `average`: "macro" or "micro".
    Sample weights are an error: mark pixels to leave out with `ignore_label`, and pass this in `metrics=`.
    """

    def __init__(self, num_classes, average="macro", ignore_label=255, name="scores", dtype=None):
        super().__init__(name=name, dtype=dtype)
        if average not in ("macro", "micro") or num_classes < 1:
            raise InputError(f'Need average "macro" or "micro", num_classes > 0: {average!r}, {num_classes}.')
        self.num_classes, self.average, self.ignore_label = num_classes, average, ignore_label
        self._limbs = keras.backend.backend() == "jax"
        limbs, kind = ((2,), "int32") if self._limbs else ((), "int64")
        self.counts = self.add_variable((*limbs, num_classes + 1, num_classes + 1), "zeros", dtype=kind, name="counts")

    def update_state(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise InputError("SegmentationScores takes no sample weights. Mark pixels with ignore_label.")
        batch = batch_confusion_matrix(y_true, y_pred, self.num_classes, self.ignore_label)
        if self._limbs:
            low = self.counts[0] + batch
            batch = ops.stack([low % _LIMB - self.counts[0], low // _LIMB])
        self.counts.assign_add(ops.cast(batch, self.counts.dtype))

    def result(self):
        counts = ops.convert_to_tensor(self.counts)
        if self._limbs:
            counts = ops.cast(counts[0], "float32") + ops.cast(counts[1], "float32") * float(_LIMB)
        return {**_five(counts[:-1], self.average, ops), "mean_iou": _five(counts[:-1], "macro", ops)["jaccard"]}

    def _state(self):
        counts = ops.convert_to_numpy(self.counts).astype(np.int64)
        return counts[0] + counts[1] * _LIMB if self._limbs else counts

    def matrix(self):
        """The confusion matrix so far: int64 NumPy (C, C + 1)."""
        return self._state()[:-1]

    def scores(self, classes=None, images=0):
        """`Scores` of the state; `classes` are the C names (default "0", "1", ...)."""
        names = classes or [str(i) for i in range(self.num_classes)]
        return Scores.from_confusion_matrix(self.matrix(), names, images, self._state()[-1].sum())

    def get_config(self):
        return {**super().get_config(), **{n: getattr(self, n) for n in ("num_classes", "average", "ignore_label")}}
