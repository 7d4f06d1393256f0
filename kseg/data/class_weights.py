"""Weights of the classes in a loss, from the pixels that a training split has of each."""

from collections.abc import Sequence

import numpy as np

from kseg.io.errors import InputError
from kseg.settings import parse_class_weights

_EXPONENTS = {"median_frequency": 1.0, "inverse_sqrt_frequency": 0.5}


def median_frequency_weights(
    pixel_counts: Sequence[int] | np.ndarray,
    present_pixels: Sequence[int] | np.ndarray | None = None,
    exponent: float = 1.0,
) -> np.ndarray:
    """Class weights (median frequency / frequency) ** exponent (Eigen & Fergus 2015, arXiv 1411.4734, 6.3.2).

    Args:
        pixel_counts: pixels of each class over the training split, C integers.
        present_pixels: valid pixels of the images that contain the class, C integers: the paper's denominator
            of a frequency. None takes a class's share of all pixels: our deviation, for splits whose presence was not
            counted; it gives larger weights to classes that few images hold.
        exponent: 1 is the paper's; 0.5 is the inverse square root of the frequency, 1 where it is the median.
    Returns: float32 (C,). A class without pixels gets 0, and no part in the median: it is never the truth,
        so any weight would do, and 0 is finite.
    Raises: ValueError for counts that are negative, all zero, or of different lengths.
    """
    counts = np.asarray(pixel_counts, np.float64)
    totals = np.full_like(counts, counts.sum())
    if present_pixels is not None:
        totals = np.asarray(present_pixels, float)
    if counts.ndim != 1 or counts.shape != totals.shape or not (counts >= 0).all() or not counts.any():
        given = f"{counts.tolist()} of {totals.tolist()}"
        raise InputError(f"Pixel counts must be one per class, >= 0 and not all 0, got {given}.")
    if (totals < counts).any():
        raise InputError(f"A class cannot have more pixels than its images: {counts.tolist()}, {totals.tolist()}.")
    held = counts > 0
    frequencies = counts[held] / totals[held]
    weights = np.zeros(counts.shape, np.float32)
    weights[held] = (np.median(frequencies) / frequencies) ** exponent
    return weights


def class_weights(
    kind: str,
    pixel_counts: Sequence[int] | np.ndarray,
    num_classes: int,
    present_pixels: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray | None:
    """Class weights as the setting `class_weights` names them.

    Args:
        kind: "none" (gives None), "median_frequency", "inverse_sqrt_frequency" (its square root: rare classes do
            not drown the rest), or the weights themselves, "1,2,0.5".
        pixel_counts, present_pixels: as `median_frequency_weights` takes them; not used for given weights.
        num_classes: C, the classes of the model.
    Returns: float32 (C,), or None.
    Raises: ValueError for another text, or counts or weights of another number of classes.
    """
    kind = parse_class_weights(kind)
    if kind == "none":
        return None
    if isinstance(kind, str):
        if len(pixel_counts) != num_classes:
            raise InputError(
                f"Class weights need one pixel count per class: the model has {num_classes} classes, the data "
                f"{len(pixel_counts)}. Use the label set that the model was built for."
            )
        return median_frequency_weights(pixel_counts, present_pixels, _EXPONENTS[kind])
    if len(kind) != num_classes:
        raise InputError(f"class_weights must be {num_classes} numbers, one for each class, got {len(kind)}.")
    return np.asarray(kind, "float32")
