"""Losses over valid pixels: a sum of terms, each a sum and the count that it is divided by over the global batch."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from keras import ops

from kseg.io.errors import InputError
from kseg.losses import functional
from kseg.settings import FOCAL_GAMMA, TOP_K_SHARE, parse_loss


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
        loss: names and factors, "cross_entropy+0.5*dice" (`kseg.settings.parse_loss`). cross_entropy and focal are
            means over the valid pixels; top_k_cross_entropy, dice and lovasz_softmax are computed for each image, then
            averaged over the images that have a valid pixel. `kseg.losses.functional` defines each, with its paper.
        class_weights: C numbers >= 0 for cross_entropy, focal and top_k_cross_entropy, or None for 1.
        focal_gamma: of focal, >= 0. top_k_share: of top_k_cross_entropy, the share of the pixels kept, in (0, 1].
    Raises: ValueError for a bad sum or number, or an option that no loss of the sum takes.
    """
    parts = parse_loss(loss, class_weights is not None, focal_gamma, top_k_share)
    pixels, images = functional.valid_pixels, functional.valid_images
    weighted = {"class_weights": class_weights}
    kinds = {
        "cross_entropy": (functional.cross_entropy_sum, weighted, pixels),
        "focal": (functional.focal_sum, {"gamma": focal_gamma, **weighted}, pixels),
        "top_k_cross_entropy": (functional.top_k_cross_entropy_sum, {"share": top_k_share, **weighted}, images),
        "dice": (functional.dice_sum, {}, images),
        "lovasz_softmax": (functional.lovasz_softmax_sum, {}, images),
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
