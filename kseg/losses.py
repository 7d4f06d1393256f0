"""Losses over valid pixels as (sum, count), so that a caller can divide by the count of the global batch."""

import keras
import numpy as np
from keras import ops

# Exponents of (median frequency / frequency): the square root keeps rare classes from drowning the rest.
_EXPONENTS = {"median_frequency": 1.0, "sqrt_median_frequency": 0.5}


def cross_entropy(labels, logits, class_weights=None, ignore_label=255):
    """Softmax cross entropy summed over the valid pixels, and their number; in float32, compiles under XLA.

    The denominator is the number of valid pixels, not the sum of their weights (as in SegNet, Badrinarayanan
    et al. 2017), so a class weight of 0 counts. Under several replicas add up both before dividing.
    Args:
        labels: integers (B, H, W). Valid is a label in [0, C) that is not `ignore_label`; every other pixel
            adds to neither (metrics.SegmentationScores counts those that are no class).
        logits: (B, H, W, C), of any float dtype.
        class_weights: C numbers >= 0, or None for 1.
    Returns: (sum, count), float32 scalars; (0, 0) and zero gradients where nothing is valid.
    Raises: ValueError if the shapes, or the number of weights, do not fit the logits.
    """
    total = cross_entropy_sum(labels, logits, class_weights, ignore_label)
    return total, valid_pixels(labels, logits.shape[-1], ignore_label)


def valid_pixels(labels, classes, ignore_label=255):
    """Return how many labels (B, H, W) lie in [0, classes) and are not `ignore_label`, a float32 scalar."""
    # Rows first: a single float32 accumulator over millions of pixels loses digits.
    return ops.sum(ops.sum(ops.cast(_valid(ops.cast(labels, "int32"), classes, ignore_label), "float32"), axis=-1))


def _valid(labels, classes, ignore_label):
    return (labels >= 0) & (labels < classes) & ops.not_equal(labels, ignore_label)


def cross_entropy_sum(labels, logits, class_weights=None, ignore_label=255):
    """Return the sum of `cross_entropy` alone, a float32 scalar."""
    labels, logits = ops.cast(labels, "int32"), ops.cast(logits, "float32")
    shapes = tuple(labels.shape), tuple(logits.shape)
    classes = shapes[1][-1]
    if len(shapes[0]) + 1 != len(shapes[1]) or any(a != b for a, b in zip(*shapes, strict=False) if a and b):
        raise ValueError(f"Need labels (B, H, W) and logits (B, H, W, C), got {shapes[0]} and {shapes[1]}.")
    valid = _valid(labels, classes, ignore_label)
    labels = ops.where(valid, labels, 0)  # TensorFlow answers nan to a label that is no class
    losses = _sparse_cross_entropy(labels, logits)
    if class_weights is not None:
        losses = losses * ops.take(_checked_weights(class_weights, classes), labels)
    return ops.sum(ops.sum(ops.where(valid, losses, 0.0), axis=-1))  # rows first, as in `valid_pixels`


def _sparse_cross_entropy(labels, logits):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)  # one pass, no one-hot array
    # XLA fuses the comparison into the sum: nothing of the size of the logits is stored for it.
    own = ops.equal(ops.expand_dims(labels, -1), ops.arange(logits.shape[-1], dtype="int32"))
    return ops.logsumexp(logits, axis=-1) - ops.sum(ops.where(own, logits, 0.0), axis=-1)


def _checked_weights(weights, classes):
    weights = np.asarray(weights, "float32")
    if weights.shape != (classes,):
        raise ValueError(f"The model has {classes} classes, got class weights of shape {weights.shape}.")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"Class weights must be finite and >= 0, got {weights.tolist()}.")
    return weights


@keras.saving.register_keras_serializable(package="kseg")
class CrossEntropy(keras.losses.Loss):
    """`cross_entropy` as a Keras loss for `compile`: sum / count, 0 with zero gradients if none is valid.

    Under a distribution strategy `fit` averages the replicas' means, which differs from the mean over the
    valid pixels of the global batch where they are unevenly spread; `kseg.train` divides by the global count.
    Args: class_weights: C numbers >= 0, or None; ignore_label: no loss where the label equals it.
    Raises: ValueError for sample weights: mark the pixels to leave out with `ignore_label`.
    """

    def __init__(self, class_weights=None, ignore_label=255, name="cross_entropy"):
        super().__init__(name=name, dtype="float32")  # a bfloat16 default would round labels
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]
        self.ignore_label = ignore_label

    def __call__(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise ValueError("CrossEntropy takes no sample weights. Mark pixels with ignore_label.")
        return super().__call__(y_true, y_pred)

    def call(self, y_true, y_pred):
        total, count = cross_entropy(y_true, y_pred, self.class_weights, self.ignore_label)
        return total / ops.maximum(count, 1.0)

    def get_config(self):
        return {"class_weights": self.class_weights, "ignore_label": self.ignore_label, "name": self.name}


def median_frequency_weights(pixel_counts, present_pixels=None, exponent=1.0):
    """Class weights (median frequency / frequency) ** exponent (Eigen & Fergus 2015, arXiv 1411.4734, 6.3.2).

    Args:
        pixel_counts: pixels of each class over the training split, C integers.
        present_pixels: valid pixels of the images that contain the class, C integers: the paper's denominator
            of a frequency. None takes a class's share of all pixels: our deviation, for splits where the
            presence was not counted; it gives larger weights to classes that few images hold.
        exponent: 1 is the paper's; 0.5 flattens the weights.
    Returns: float32 (C,). A class without pixels gets 0, and no part in the median: it is never the truth,
        so any weight would do, and 0 is finite.
    Raises: ValueError for counts that are negative, all zero, or of different lengths.
    """
    counts = np.asarray(pixel_counts, np.float64)
    totals = np.full_like(counts, counts.sum()) if present_pixels is None else np.asarray(present_pixels, float)
    if counts.ndim != 1 or counts.shape != totals.shape or not (counts >= 0).all() or not counts.any():
        came = f"{counts.tolist()} of {totals.tolist()}"
        raise ValueError(f"Pixel counts must be one per class, >= 0 and not all 0, got {came}.")
    if (totals < counts).any():
        raise ValueError(f"A class cannot have more pixels than its images: {counts.tolist()}, {totals.tolist()}.")
    held = counts > 0
    frequencies = counts[held] / totals[held]
    weights = np.zeros(counts.shape, np.float32)
    weights[held] = (np.median(frequencies) / frequencies) ** exponent
    return weights


def class_weights(kind, pixel_counts, num_classes, present_pixels=None):
    """Class weights by name: "none" (gives None), "median_frequency" or "sqrt_median_frequency".

    Args:
        kind: one of these names.
        pixel_counts, present_pixels: as `median_frequency_weights` takes them.
        num_classes: C, the classes of the model.
    Returns: float32 (C,), or None.
    Raises: ValueError for another name, or counts of another number of classes.
    """
    if kind == "none":
        return None
    if kind not in _EXPONENTS:
        names = ", ".join(["none", *_EXPONENTS])
        raise ValueError(f"Class weights must be one of {names}, got {kind!r}.")
    if len(pixel_counts) != num_classes:
        raise ValueError(
            f"Class weights need one pixel count per class: the model has {num_classes} classes, the data "
            f"{len(pixel_counts)}. Use the label set that the model was built for."
        )
    return median_frequency_weights(pixel_counts, present_pixels, _EXPONENTS[kind])
