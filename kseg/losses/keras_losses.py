"""CrossEntropy, SegmentationLoss for compile."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kseg.io.errors import InputError
from kseg.losses import functional
from kseg.losses.terms import _numbers, loss_terms, mean_of_terms
from kseg.settings import FOCAL_GAMMA, TOP_K_SHARE


class Objective(keras.losses.Loss):
    """The sum of `losses.Term`s as a Keras loss, for a backend whose step is one program over the global batch."""

    def __init__(self, terms):
        super().__init__(name="objective", dtype="float32")
        self.terms = terms

    def call(self, y_true, y_pred):
        return mean_of_terms(self.terms, y_true, y_pred)


def cross_entropy(
    labels: Any, logits: Any, class_weights: Sequence[float] | None = None, ignore_label: int = 255
) -> tuple[Any, Any]:
    """Softmax cross entropy summed over the valid pixels, and their number; in float32, compiles under XLA.

    The denominator is the number of valid pixels, not the sum of their weights (as in SegNet, Badrinarayanan
    et al. 2017), so a class weight of 0 counts. Under several replicas add up both before dividing.
    Args:
        labels: integers (B, H, W). Valid is a label in [0, C) that is not `ignore_label`; every other pixel
            adds to neither (metrics.SegmentationScores counts those that are not a class).
        logits: (B, H, W, C), of any float dtype.
        class_weights: C numbers >= 0, or None for 1.
    Returns: (sum, count), float32 scalars; (0, 0) and zero gradients where nothing is valid.
    Raises: ValueError if the shapes, or the number of weights, do not fit the logits.
    """
    total = functional.cross_entropy_sum(labels, logits, class_weights, ignore_label)
    return total, functional.valid_pixels(labels, logits.shape[-1], ignore_label)


@keras.saving.register_keras_serializable(package="kseg")
class SegmentationLoss(keras.losses.Loss):
    """A loss, or a sum of losses, over the valid pixels as a Keras loss for `compile`; 0 if none is valid.

    Under a distribution strategy `fit` averages the replicas' losses, which differs from the loss of the global batch
    where valid pixels are unevenly spread; `kseg.train` divides by the global counts.
    Args: as `loss_terms` takes them; pixels with label `ignore_label` count nowhere.
    Raises: ValueError as `loss_terms`; for sample weights: mark the pixels to leave out with `ignore_label`; for the
        class_weight of `fit`: give `class_weights` here.
    """

    def __init__(
        self,
        loss: str = "cross_entropy",
        class_weights: Sequence[float] | None = None,
        focal_gamma: float = FOCAL_GAMMA,
        top_k_share: float = TOP_K_SHARE,
        ignore_label: int = 255,
        name: str = "segmentation_loss",
    ) -> None:
        super().__init__(name=name, dtype="float32")  # a bfloat16 default would round labels
        self._options = {
            "loss": loss,
            "class_weights": _numbers(class_weights),
            "focal_gamma": focal_gamma,
            "top_k_share": top_k_share,
            "ignore_label": ignore_label,
        }
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

    def __init__(
        self, class_weights: Sequence[float] | None = None, ignore_label: int = 255, name: str = "cross_entropy"
    ) -> None:
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


def _refuse(loss, labels, sample_weight):
    if sample_weight is None:
        return
    name = type(loss).__name__
    rank = len(getattr(sample_weight, "shape", ()))
    if rank > 1 and rank == len(labels.shape) - 1:  # fit takes the labels' last axis for that of one-hot classes
        raise InputError(
            f"{name} does not take the class_weight of fit, which is per image and not per pixel. "
            f"Give one weight for each class to the loss: {name}(class_weights=[...])."
        )
    raise InputError(f"{name} takes no sample weights. Mark pixels with ignore_label.")
