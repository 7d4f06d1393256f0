"""Losses over valid pixels: a sum of terms, each a sum and the count that it is divided by over the global batch."""

import functools
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from kseg.io.errors import InputError
from kseg.settings import FOCAL_GAMMA, LOSSES, TOP_K_SHARE, parse_loss


class Term(NamedTuple):
    """One loss of a run: weight * total / max(count, 1), both summed over the whole batch before dividing.

    total: (labels, logits) -> float32 scalar, a sum. count: (labels, classes) -> float32 scalar, what it is a sum over;
    a function of the labels alone, so that it is known before any forward pass.
    """

    weight: float
    total: Callable[[Any, Any], Any]
    count: Callable[[Any, int], Any]


def loss_terms(
    loss: str,
    class_weights: Sequence[float] | None = None,
    focal_gamma: float = FOCAL_GAMMA,
    top_k_share: float = TOP_K_SHARE,
    ignore_label: int = 255,
) -> list[Term]:
    """Return the Terms of a sum of losses.

    Args:
        loss: names and factors, "cross_entropy+0.5*dice" of `kseg.settings.LOSSES`. cross_entropy and focal are
            means over the valid pixels; top_k_cross_entropy, dice and lovasz_softmax are computed for each image, then
            averaged over the images that have a valid pixel. `kseg.losses.functional` defines each, with its paper.
        class_weights: C numbers >= 0 for cross_entropy, focal and top_k_cross_entropy, or None for 1.
        focal_gamma: of focal, >= 0. top_k_share: of top_k_cross_entropy, the share of the pixels that count, in (0, 1].
    Raises: ValueError for a bad sum or number, or an option that no loss of the sum takes.
    """
    settings = {"class_weights": class_weights, "focal_gamma": focal_gamma, "top_k_share": top_k_share}
    terms = []
    for factor, name in parse_loss(loss, class_weights is not None, focal_gamma, top_k_share):
        entry = LOSSES[name]
        options = {keyword: settings[setting] for keyword, setting in entry.options.items()}
        total = functools.partial(pkgutil.resolve_name(entry.total), ignore_label=ignore_label, **options)
        count = functools.partial(pkgutil.resolve_name(entry.count), ignore_label=ignore_label)
        terms.append(Term(factor, total, count))
    return terms


def mean_of_terms(terms: Sequence[Term], labels: Any, logits: Any) -> Any:
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
