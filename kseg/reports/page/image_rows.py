"""What the gallery of a page says of each image."""

import math

import numpy as np

from kseg.metrics.bootstrap import scores_of_counts


def image_row(name, truth, predictions, valid):
    """Return the name, size and classes of an image, and where each model's prediction differs from the first's.

    Args:
        truth, predictions: class ids (H, W), and M of the same. valid: bool (H, W), the pixels of a class.
    """
    differ = [np.count_nonzero((prediction != predictions[0]) & valid) for prediction in predictions[1:]]
    return {
        "name": name,
        "size": [truth.shape[1], truth.shape[0]],
        "classes": np.unique(truth[valid]).tolist(),
        "disagreement": [None, *(n / valid.sum() if valid.any() else math.nan for n in differ)],
    }


def scored_rows(rows, counts):
    """Return rows with each model's scores on its image.

    Args:
        rows: n of `image_row`. counts: int64 (n, 1 + 2 M, C) of `kseg.metrics.bootstrap.ImageCounts`.
    """
    each = scores_of_counts(counts)
    found = []
    for i, row in enumerate(rows):
        scores = {name: _rounded(each[name][i]) for name in ("mean_iou", "pixel_accuracy")}
        found.append({**row, **scores, "iou": [_rounded(model) for model in each["per_class"][i]]})
    return found


def _rounded(values):
    return [round(value, 4) for value in np.asarray(values).tolist()]  # a tenth of what a page shows
