"""What a run minimises: a sum of losses, each divided by its count over the whole batch."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kseg import losses


class Term(NamedTuple):
    """One loss of a run: weight * total / max(count, 1), both added up over all that is one batch before dividing.

    total: (labels, logits) -> float32 scalar, a sum. count: (labels, classes) -> float32 scalar, what it is a sum over;
    a function of the labels alone, so that it is known before any forward pass.
    """

    weight: float
    total: Callable
    count: Callable


class Objective(keras.losses.Loss):
    """The sum of the terms as a Keras loss, for a backend whose step is one program over the global batch."""

    def __init__(self, terms):
        super().__init__(name="objective", dtype="float32")
        self.terms = terms

    def call(self, y_true, y_pred):
        return sum(
            term.weight * term.total(y_true, y_pred) / ops.maximum(term.count(y_true, y_pred.shape[-1]), 1.0)
            for term in self.terms
        )


def make_terms(settings, split, outputs):
    """Return the Terms of a run.

    Args:
        settings: `kseg.settings.Settings`. split: the training examples, whose pixel counts give the class weights.
        outputs: channels of the logits, at least the label set's classes.
    """
    kind = settings.class_weights
    counts = () if kind == "none" else split.pixel_counts()
    weights = losses.class_weights(kind, counts, split.label_set.num_classes)
    if weights is not None:  # an output beyond the classes is never the truth: any weight would do
        weights = np.pad(weights, (0, outputs - len(weights)))
    total = functools.partial(losses.cross_entropy_sum, class_weights=weights)
    return [Term(1.0, total, losses.valid_pixels)]
