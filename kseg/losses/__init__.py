"""Losses over valid pixels; importing this registers them for `.keras` files."""

from kseg.data.class_weights import class_weights, median_frequency_weights
from kseg.losses.keras_losses import CrossEntropy, SegmentationLoss, cross_entropy
from kseg.losses.terms import Term, loss_terms, mean_of_terms

__all__ = [
    "CrossEntropy",
    "SegmentationLoss",
    "Term",
    "class_weights",
    "cross_entropy",
    "loss_terms",
    "mean_of_terms",
    "median_frequency_weights",
]
