"""Losses over valid pixels: a sum of terms, each a sum and the count that it is divided by over the global batch."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kseg import loss_sums
from kseg.class_weights import class_weights, median_frequency_weights
from kseg.errors import InputError
from kseg.loss_options import FOCAL_GAMMA, TOP_K_SHARE, parse_loss

__all__ = ["CrossEntropy", "SegmentationLoss", "Term", "class_weights", "cross_entropy", "loss_terms", "mean_of_terms"]
__all__ += ["median_frequency_weights"]


class Term(NamedTuple):
    """One loss of a run: weight * total / max(count, 1), both added up over all that is one batch before dividing.

    total: (labels, logits) -> float32 scalar, a sum. count: (labels, classes) -> float32 scalar, what it is a sum over;
    a function of the labels alone, so that it is known before any forward pass.
    """

    weight: float
    total: Callable
    count: Callable


def loss_terms(loss, class_weights=None, focal_gamma=FOCAL_GAMMA, top_k_share=TOP_K_SHARE, ignore_label=255):
    """Return the Terms of a sum of losses.

    Args:
        loss: names and factors, "cross_entropy+0.5*dice" (`kseg.loss_options.parse_loss`). cross_entropy and focal are
            means over the valid pixels; top_k_cross_entropy, dice and lovasz_softmax are computed for each image, then
            averaged over the images that have a valid pixel. `kseg.loss_sums` defines each, with its paper.
        class_weights: C numbers >= 0 for cross_entropy, focal and top_k_cross_entropy, or None for 1.
        focal_gamma: of focal, >= 0. top_k_share: of top_k_cross_entropy, the share of the pixels kept, in (0, 1].
    Raises: ValueError for a bad sum or number, or an option that no loss of the sum takes.
    """
    parts = parse_loss(loss, class_weights is not None, focal_gamma, top_k_share)
    pixels, images = loss_sums.valid_pixels, loss_sums.valid_images
    weighted = {"class_weights": class_weights}
    kinds = {
        "cross_entropy": (loss_sums.cross_entropy_sum, weighted, pixels),
        "focal": (loss_sums.focal_sum, {"gamma": focal_gamma, **weighted}, pixels),
        "top_k_cross_entropy": (loss_sums.top_k_cross_entropy_sum, {"share": top_k_share, **weighted}, images),
        "dice": (loss_sums.dice_sum, {}, images),
        "lovasz_softmax": (loss_sums.lovasz_softmax_sum, {}, images),
    }
    terms = []
    for factor, name in parts:
        total, options, count = kinds[name]
        count = functools.partial(count, ignore_label=ignore_label)
        terms.append(Term(factor, functools.partial(total, ignore_label=ignore_label, **options), count))
    return terms


def mean_of_terms(terms, labels, logits):
    """Return the sum of weight * total / max(count, 1) over Terms, a float32 scalar: the loss of a whole batch."""
    counted = [(term, term.count(labels, logits.shape[-1])) for term in terms]
    return sum(term.weight * term.total(labels, logits) / ops.maximum(count, 1.0) for term, count in counted)


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
    total = loss_sums.cross_entropy_sum(labels, logits, class_weights, ignore_label)
    return total, loss_sums.valid_pixels(labels, logits.shape[-1], ignore_label)


@keras.saving.register_keras_serializable(package="kseg")
class SegmentationLoss(keras.losses.Loss):
    """A loss, or a sum of losses, over the valid pixels as a Keras loss for `compile`; 0 if none is valid.

    Under a distribution strategy `fit` averages the replicas' losses, which differs from the loss of the global batch
    where valid pixels are unevenly spread; `kseg.train` divides by the global counts.
    Args: as `loss_terms` takes them; labels equal to `ignore_label` have no part in anything.
    Raises: ValueError as `loss_terms`; for sample weights: mark the pixels to leave out with `ignore_label`; for the
        class_weight of `fit`: give `class_weights` here.
    """

    def __init__(
        self,
        loss="cross_entropy",
        class_weights=None,
        focal_gamma=FOCAL_GAMMA,
        top_k_share=TOP_K_SHARE,
        ignore_label=255,
        name="segmentation_loss",
    ):
        super().__init__(name=name, dtype="float32")  # a bfloat16 default would round labels
        weights = _numbers(class_weights)
        self._options = {"loss": loss, "class_weights": weights, "focal_gamma": focal_gamma}
        self._options |= {"top_k_share": top_k_share, "ignore_label": ignore_label}
        self._terms = loss_terms(**self._options)

    def __call__(self, y_true, y_pred, sample_weight=None):
        _refuse(self, y_true, sample_weight)
        return super().__call__(y_true, y_pred)

    def call(self, y_true, y_pred):
        return mean_of_terms(self._terms, y_true, y_pred)

    def get_config(self):
        return {**self._options, "name": self.name}


@keras.saving.register_keras_serializable(package="kseg")
class CrossEntropy(keras.losses.Loss):
    """`cross_entropy` as a Keras loss for `compile`: sum / count; `SegmentationLoss` says what holds for both.

    Args: class_weights: C numbers >= 0, or None; ignore_label: no loss where the label equals it.
    Raises: ValueError for sample weights and the class_weight of `fit`, as `SegmentationLoss`.
    """

    def __init__(self, class_weights=None, ignore_label=255, name="cross_entropy"):
        super().__init__(name=name, dtype="float32")  # a bfloat16 default would round labels
        self.class_weights = _numbers(class_weights)
        self.ignore_label = ignore_label

    def __call__(self, y_true, y_pred, sample_weight=None):
        _refuse(self, y_true, sample_weight)
        return super().__call__(y_true, y_pred)

    def call(self, y_true, y_pred):
        total, count = cross_entropy(y_true, y_pred, self.class_weights, self.ignore_label)
        return total / ops.maximum(count, 1.0)

    def get_config(self):
        return {"class_weights": self.class_weights, "ignore_label": self.ignore_label, "name": self.name}


def _numbers(class_weights):
    """Return class weights as a list of floats, or None for none."""
    if class_weights is None:
        return None
    try:
        weights = np.asarray(class_weights)
    except ValueError:  # NumPy's own, of lists of several lengths
        weights = np.empty(0)
    if weights.ndim != 1 or weights.dtype.kind not in "iuf" or not weights.size:
        raise InputError(f"class_weights must be one number for each class, or None, got {class_weights!r}.")
    return weights.astype(float).tolist()


def _refuse(loss, labels, sample_weight):
    if sample_weight is None:
        return
    name, rank = type(loss).__name__, len(getattr(sample_weight, "shape", ()))
    if rank > 1 and rank == len(labels.shape) - 1:  # fit takes the labels' last axis for that of one-hot classes
        raise InputError(
            f"{name} does not take the class_weight of fit, which knows one class an image and none a pixel. "
            f"Give one weight for each class to the loss: {name}(class_weights=[...])."
        )
    raise InputError(f"{name} takes no sample weights. Mark pixels with ignore_label.")
