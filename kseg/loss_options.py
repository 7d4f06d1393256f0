"""What the settings of a loss may say. No framework is imported: bad flags are told before one is."""

import math
import numbers

from kseg.errors import InputError

# Losses that are a weighting of the pixels' cross entropies, so that class weights have a meaning there.
WEIGHTED = ("cross_entropy", "focal", "top_k_cross_entropy")
LOSSES = (*WEIGHTED, "dice", "lovasz_softmax")
CLASS_WEIGHTS = ("none", "median_frequency", "inverse_sqrt_frequency")
FOCAL_GAMMA, TOP_K_SHARE = 2.0, 0.2


def parse_loss(expression, weighted=False, focal_gamma=FOCAL_GAMMA, top_k_share=TOP_K_SHARE):
    """Read a sum of losses, "cross_entropy+0.5*dice", and check that the other options have a part in it.

    Args:
        expression: names of LOSSES joined by "+", each with a factor > 0 and "*" before it or without.
        weighted: whether there are class weights. They scale the losses in WEIGHTED; dice and lovasz_softmax count
            every class of an image alike already and take none.
        focal_gamma: >= 0. top_k_share: in (0, 1]. Another than the default needs its loss in the sum.
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
                f"got {expression!r}: {part.strip()!r} is none."
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
    _check_used("class_weights", weighted, WEIGHTED, names)
    _check_used("focal_gamma", focal_gamma != FOCAL_GAMMA, ("focal",), names)
    _check_used("top_k_share", top_k_share != TOP_K_SHARE, ("top_k_cross_entropy",), names)
    return terms


def _check_used(option, given, takers, names):
    if given and not set(takers) & set(names):
        what = f"{option} has no meaning with loss {'+'.join(names)}"
        raise InputError(f"{what}: add {' or '.join(takers)}, or leave {option} out.")


def parse_class_weights(text):
    """Return one of the names CLASS_WEIGHTS, or the numbers that "1,2,.5" gives, one a class.

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
