"""The losses by name, and what `--loss` and `--class_weights` may say."""

import math
import numbers
from typing import NamedTuple

from kseg.io.errors import InputError


class Loss(NamedTuple):
    """A loss of `--loss`.

    total, count: as "module:function", because this file imports no framework: (labels, logits, ignore_label,
    **options) -> a sum, (labels, classes, ignore_label) -> the number that the sum is divided by. options: keyword of
    `total` -> the setting that it takes; class_weights only if the loss is a weighting of the pixels' cross entropies.
    help: for docs/reference/losses.md.
    """

    total: str
    count: str
    options: dict[str, str]
    help: str


_PIXELS = "kseg.losses.functional:valid_pixels"
_IMAGES = "kseg.losses.functional:valid_images"
_WEIGHTED = {"class_weights": "class_weights"}
LOSSES = {
    "cross_entropy": Loss(
        "kseg.losses.functional:cross_entropy_sum",
        _PIXELS,
        _WEIGHTED,
        "mean over the valid pixels of the batch",
    ),
    "focal": Loss(
        "kseg.losses.functional:focal_sum",
        _PIXELS,
        {"gamma": "focal_gamma", **_WEIGHTED},
        "the same, with less weight for pixels that are already right; `--focal_gamma` sets how much less",
    ),
    "top_k_cross_entropy": Loss(
        "kseg.losses.functional:top_k_cross_entropy_sum",
        _IMAGES,
        {"share": "top_k_share", **_WEIGHTED},
        "mean over each image's hardest valid pixels, then over images; `--top_k_share` sets their share",
    ),
    "dice": Loss(
        "kseg.losses.functional:dice_sum",
        _IMAGES,
        {},
        "mean over the classes in each image's label, then over images",
    ),
    "lovasz_softmax": Loss(
        "kseg.losses.functional:lovasz_softmax_sum",
        _IMAGES,
        {},
        "the same, with 1 - IoU instead of 1 - Dice",
    ),
}
TAKING_WEIGHTS = [name for name, loss in LOSSES.items() if "class_weights" in loss.options]
CLASS_WEIGHTS = ("none", "median_frequency", "inverse_sqrt_frequency")
FOCAL_GAMMA = 2.0
TOP_K_SHARE = 0.2


def parse_loss(expression, weighted=False, focal_gamma=FOCAL_GAMMA, top_k_share=TOP_K_SHARE):
    """Read a sum of losses, "cross_entropy+0.5*dice", and check that it uses the other options.

    Args:
        expression: names of LOSSES joined by "+"; each may have a factor > 0 and "*" before it.
        weighted: whether there are class weights. dice and lovasz_softmax count all classes of an image equally and
            take none.
        focal_gamma: >= 0. top_k_share: in (0, 1]. A value other than the default needs its loss in the sum.
    Returns: list of (factor, name).
    Raises: ValueError for any other text or number, a loss named twice, or an option without a loss that takes it.
    """
    terms = []
    for part in str(expression).split("+"):
        factor, star, name = part.strip().rpartition("*")
        value = _number(factor) if star else 1.0
        if name.strip() not in LOSSES or value is None or not 0 < value < math.inf:
            raise InputError(
                f"loss must be a sum such as cross_entropy+0.5*dice of {', '.join(LOSSES)}, with factors above 0, "
                f"got {expression!r}: {part.strip()!r} is not valid."
            )
        terms.append((value, name.strip()))
    names = [name for _, name in terms]
    if len(set(names)) < len(names):
        raise InputError(f"loss must name each loss once, got {expression!r}.")
    for name, value in (("focal_gamma", focal_gamma), ("top_k_share", top_k_share)):
        if not isinstance(value, numbers.Real):
            raise InputError(f"{name} must be a number, got {value!r}.")
    if not 0 <= focal_gamma < math.inf:
        raise InputError(f"focal_gamma must be finite and at least 0, got {focal_gamma}.")
    if not 0 < top_k_share <= 1:
        raise InputError(f"top_k_share must be above 0 and at most 1, got {top_k_share}.")
    _check_used("class_weights", weighted, names)
    _check_used("focal_gamma", focal_gamma != FOCAL_GAMMA, names)
    _check_used("top_k_share", top_k_share != TOP_K_SHARE, names)
    return terms


def _check_used(option, given, names):
    takers = [name for name, loss in LOSSES.items() if option in loss.options.values()]
    if given and not set(takers) & set(names):
        what = f"{option} has no effect with loss {'+'.join(names)}"
        raise InputError(f"{what}: add {' or '.join(takers)}, or leave {option} out.")


def parse_class_weights(text):
    """Return one of the names CLASS_WEIGHTS, or the numbers in a text such as "1,2,.5", one per class.

    Raises: ValueError for another name, numbers that are negative or not finite, or all 0.
    """
    if text in CLASS_WEIGHTS:
        return text
    weights = [_number(part) for part in text.split(",")] if isinstance(text, str) else [None]
    if None in weights or not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise InputError(
            f"class_weights must be one of {', '.join(CLASS_WEIGHTS)}, or text with a number >= 0 for each class, "
            f"not all 0, such as '1,2,0.5'; got {text!r}."
        )
    return weights


def _number(text):
    try:
        return float(text)
    except ValueError:
        return None
