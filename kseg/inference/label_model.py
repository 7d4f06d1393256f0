"""What gives label maps and is no keras.Model: the base of SavedModels, models from outside and folders of maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kseg.io.errors import InputError


class LabelModel:
    """Gives label maps. A child has `predict`.

    label_set: dict of name, classes and palette, None where the classes have no names. num_classes: how many ids it
    gives, None where only the data can say. reads: in words, what it is and how it takes images.
    """

    label_set: dict[str, Any] | None = None
    num_classes: int | None = None
    reads = ""

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
