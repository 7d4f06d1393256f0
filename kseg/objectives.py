"""What a run minimises: a sum of losses, each divided by its count over the whole batch."""

import keras
import numpy as np

from kseg import losses
from kseg.loss_options import CLASS_WEIGHTS


class Objective(keras.losses.Loss):
    """The sum of `losses.Term`s as a Keras loss, for a backend whose step is one program over the global batch."""

    def __init__(self, terms):
        super().__init__(name="objective", dtype="float32")
        self.terms = terms

    def call(self, y_true, y_pred):
        return losses.mean_of_terms(self.terms, y_true, y_pred)


def make_terms(settings, split, outputs):
    """Return the Terms of a run.

    Args:
        settings: `kseg.settings.Settings`. split: the training examples, whose pixel counts give the class weights.
        outputs: channels of the logits, at least the label set's classes.
    """
    kind = settings.class_weights
    counts = split.pixel_counts() if kind in CLASS_WEIGHTS[1:] else ()
    weights = losses.class_weights(kind, counts, split.label_set.num_classes)
    if weights is not None:  # an output beyond the classes is never the truth: any weight would do
        weights = np.pad(weights, (0, outputs - len(weights)))
    return losses.loss_terms(settings.loss, weights, settings.focal_gamma, settings.top_k_share)
