"""The scores as a Keras metric."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kseg.io.errors import InputError, check_whole
from kseg.metrics.scores import Scores
from kseg.score_table import five_of_counts

_LIMB = 2**30  # JAX has no int64 by default: there a count is high * 2**30 + low, both int32


def batch_confusion_matrix(labels: Any, predictions: Any, num_classes: int, ignore_label: int = 255) -> Any:
    """Counts pairs of (truth, prediction) with `keras.ops`; compiles under XLA, sizes may be dynamic.

    Args:
        labels: integers (B, H, W).
        predictions: logits (B, H, W, K), of which the first maximum counts, or class ids (B, H, W).
    Returns:
        int32 (C + 1, C + 1), cells below 2**30: the module's matrix, then a row of labels neither class nor ignored.
    Raises: ValueError if the shapes do not fit each other.
    """
    labels = ops.cast(labels, "int32")
    predictions = ops.convert_to_tensor(predictions)
    is_logits = len(predictions.shape) == len(labels.shape) + 1
    wanted = tuple(labels.shape)
    given = tuple(predictions.shape)
    if is_logits:
        given = given[:-1]
    if len(wanted) != len(given) or any(a != b for a, b in zip(wanted, given, strict=True) if a and b):
        raise InputError(f"Need labels (B, H, W), logits (B, H, W, C) or ids, got {wanted}, {(*predictions.shape,)}.")
    if is_logits and keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # Keras' argmax tells -0.0 from 0.0, at four times the price without XLA

        predictions = tf.argmax(predictions, axis=-1, output_type=tf.int32)
    elif is_logits:
        predictions = ops.argmax(predictions, axis=-1)
    predicted = ops.cast(predictions, "int32")
    size = num_classes + 1  # the last row and column: outside the classes
    truth = ops.where((labels >= 0) & (labels < num_classes), labels, num_classes)
    predicted = ops.where((predicted >= 0) & (predicted < num_classes), predicted, num_classes)
    # An ignored pixel adds 0 to some cell: nothing is taken out, for XLA wants static shapes.
    weight = ops.reshape(ops.cast(ops.not_equal(labels, ignore_label), "int32"), (-1,))
    cells = ops.segment_sum(weight, ops.reshape(truth * size + predicted, (-1,)), num_segments=size * size)
    return ops.reshape(cells, (size, size))


@keras.saving.register_keras_serializable(package="kseg")
class SegmentationScores(keras.metrics.Metric):
    """Keras metric of one variable; `result()` is a float32 dict of `mean_iou`, `pixel_accuracy` and the five scores.

    `fit` shows them under their own names (`mean_iou`, `val_mean_iou`), but accuracy as `macro_accuracy`: it is far
    above `pixel_accuracy`, for each class against the rest counts most pixels of the others as right. The counts are
    exact: int64, or under JAX pairs of int32 with 60 bits; so are `matrix()` and `scores()`. `average`: "macro" or
    "micro".
    Sample weights are an error: mark pixels to leave out with `ignore_label`, and pass this in `metrics=`.
    """

    def __init__(
        self,
        num_classes: int,
        average: str = "macro",
        ignore_label: int = 255,
        name: str = "scores",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if average not in ("macro", "micro"):
            raise InputError(f'average must be "macro" or "micro", got {average!r}.')
        num_classes = check_whole("num_classes", num_classes, 1)
        self.num_classes = num_classes
        self.average = average
        self.ignore_label = ignore_label
        self._limbs = keras.backend.backend() == "jax"
        shape = (num_classes + 1, num_classes + 1)
        if self._limbs:
            self.counts = self.add_variable((2, *shape), "zeros", dtype="int32", name="counts")
        else:
            self.counts = self.add_variable(shape, "zeros", dtype="int64", name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: None = None) -> None:
        if sample_weight is not None:
            raise InputError("SegmentationScores takes no sample weights. Mark pixels with ignore_label.")
        batch = batch_confusion_matrix(y_true, y_pred, self.num_classes, self.ignore_label)
        if self._limbs:
            low = self.counts[0] + batch
            batch = ops.stack([low % _LIMB - self.counts[0], low // _LIMB])
        self.counts.assign_add(ops.cast(batch, self.counts.dtype))

    def result(self) -> dict[str, Any]:
        counts = ops.convert_to_tensor(self.counts)
        if self._limbs:
            counts = ops.cast(counts[0], "float32") + ops.cast(counts[1], "float32") * float(_LIMB)
        five = _five(counts[:-1], self.average)
        five[f"{self.average}_accuracy"] = five.pop("accuracy")
        found = {
            "mean_iou": _five(counts[:-1], "macro")["jaccard"],
            "pixel_accuracy": _five(counts[:-1], "micro")["sensitivity"],
        }
        return {**found, **five}

    def _state(self):
        counts = ops.convert_to_numpy(self.counts).astype(np.int64)
        return counts[0] + counts[1] * _LIMB if self._limbs else counts

    def matrix(self) -> np.ndarray:
        """The confusion matrix so far: int64 NumPy (C, C + 1)."""
        return self._state()[:-1]

    def scores(self, classes: Sequence[str] | None = None, images: int = 0) -> Scores:
        """`Scores` of the state; `classes` are the C names (default "0", "1", ...)."""
        names = classes or [str(i) for i in range(self.num_classes)]
        return Scores.from_confusion_matrix(self.matrix(), names, images, self._state()[-1].sum())

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "average": self.average,
            "ignore_label": self.ignore_label,
        }


def _five(matrix, average):
    """`kseg.metrics.five_scores` in keras.ops, float32."""
    tp = ops.sum(ops.where(ops.eye(matrix.shape[0], dtype="bool"), matrix[:, :-1], 0), axis=1)
    fn = ops.sum(matrix, axis=1) - tp
    fp = ops.sum(matrix[:, :-1], axis=0) - tp
    tn = ops.sum(matrix) - tp - fn - fp
    return five_of_counts(*(ops.cast(count, "float32") for count in (tp, fn, fp, tn)), average, ops)
