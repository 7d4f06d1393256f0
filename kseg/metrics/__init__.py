"""Scores: arithmetic on confusion matrices. Only `SegmentationScores` imports Keras, when it is first used."""

import importlib
from typing import TYPE_CHECKING

from kseg.metrics.confusion import confusion_matrix
from kseg.metrics.scores import Scores, five_scores
from kseg.score_table import SCORE_NAMES

__all__ = ["SCORE_NAMES", "Scores", "SegmentationScores", "batch_confusion_matrix", "confusion_matrix", "five_scores"]

if TYPE_CHECKING:
    from kseg.metrics.keras_metric import SegmentationScores, batch_confusion_matrix
else:

    def __getattr__(name):
        if name in ("SegmentationScores", "batch_confusion_matrix"):
            return getattr(importlib.import_module("kseg.metrics.keras_metric"), name)
        raise AttributeError(f"module 'kseg.metrics' has no attribute {name!r}")
