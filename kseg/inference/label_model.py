"""What gives label maps and is no keras.Model: the base of SavedModels, models from outside and folders of maps.

Also what any model says about its classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from kseg.inference.looks import ONE_MODEL
from kseg.io.errors import InputError
from kseg.layers.preprocessing import preprocess_layer


class LabelModel:
    """Gives label maps. A child has `predict`.

    label_set: dict of name, classes and palette, None where the classes have no names. num_classes: how many ids it
    gives, None where only the data can say. reads: in words, what it is and how it takes images. weights: its
    variables, none where they are hidden in a file. gives_probabilities: whether it has `probabilities`.
    """

    label_set: dict[str, Any] | None = None
    num_classes: int | None = None
    reads = ""
    weights = ()
    gives_probabilities = False

    def predict(self, images: np.ndarray, height: int, width: int, names: Sequence[str]) -> np.ndarray:
        """Label images.

        Args:
            images: uint8 (B, H, W, 3). height, width: of the label maps. names: what errors call the B images.
        Returns:
            integers (B, height, width), class ids.
        """
        raise NotImplementedError

    def predict_with_confidence(self, images, height, width, names):
        """Label images as `predict` does, and give the probability of each pixel's class, float32 (B, height, width).

        Raises:
            InputError: what gives no probabilities.
        """
        raise InputError(
            f"This model gives label maps without confidence ({self.reads or 'an export'}). Give the run or its .keras "
            "file."
        )

    def predict_with_disagreement(self, images, height, width, names):
        """Label images as `predict_with_confidence` does, and give `ensemble.disagreement` too, in the same shape.

        Raises:
            InputError: what is no ensemble.
        """
        raise InputError(ONE_MODEL)

    def probabilities(self, images, names):
        """Return the probability of every class at each pixel of uint8 images (B, H, W, 3), float32 (B, H, W, C).

        Raises:
            InputError: what gives label maps alone.
        """
        raise InputError(
            "An ensemble, tile, scales and flip need the probabilities of all classes. This model gives label maps "
            f"({self.reads or 'an export'}). Give the run or its .keras file."
        )


def label_set_of(model):
    """Return the dict of name, classes and palette that the model carries, or None."""
    if isinstance(model, LabelModel):
        return model.label_set
    layer = preprocess_layer(model)
    if layer is None:
        return json.loads(getattr(model, "kseg_label_set", "null"))
    return layer.label_set


def reads_of(model):
    """Return in words what a model is and how it takes images: `LabelModel.reads`, or "Keras"."""
    return getattr(model, "reads", "Keras")


def class_count(model):
    """Return how many classes a model gives."""
    return model.num_classes if isinstance(model, LabelModel) else model.output_shape[-1]


def class_names(model):
    """Return the names of a model's classes, their numbers where it carries none."""
    known = label_set_of(model)
    if known:
        return known["classes"]
    return [str(i) for i in range(class_count(model))]
