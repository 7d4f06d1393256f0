"""Scores of class boundaries: boundary F1 (SegNet's) and boundary IoU, streaming, in NumPy.

Void is not a class: a pixel whose truth is void is left out of both maps. There is no boundary where a class meets void
or the edge of the image. Predictions outside the classes form one more class.
"""

import math

import numpy as np

from kseg.io.errors import InputError
from kseg.io.files import write_json
from kseg.metrics.confusion import check_integers

F1_TOLERANCE = 0.0075  # of the image's diagonal, as SegNet
IOU_DISTANCE = 0.005  # of the diagonal: 2 % (46 pixels at 2048x1024), meant for instance masks, swallows poles whole


def checked_pair(truth, prediction, num_classes):
    """Return (truth, prediction, valid) of one image: uint8 (H, W) twice, bool (H, W); other ids become C.

    Args:
        truth, prediction: integer class ids (H, W); a truth outside the classes is void. num_classes: C, at most 254.
    Raises:
        ValueError: no integers, no (H, W), different shapes, or more than 254 classes.
    """
    truth = np.asarray(truth)
    prediction = np.asarray(prediction)
    if truth.ndim != 2 or truth.shape != prediction.shape or not truth.size:
        raise InputError(f"Need truth and prediction (H, W) of one size, got {truth.shape} and {prediction.shape}.")
    check_integers(truth, prediction)
    if not 1 <= num_classes <= 254:
        raise InputError(f"Between 1 and 254 classes can be scored, got {num_classes}.")
    valid = (truth >= 0) & (truth < num_classes)
    inside = (prediction >= 0) & (prediction < num_classes)
    truth = np.where(valid, truth, num_classes).astype(np.uint8)
    return truth, np.where(inside, prediction, num_classes).astype(np.uint8), valid


def boundary_pixels(labels, valid):
    """Return bool (H, W): the valid pixels that have a valid 4-neighbour of another class (both sides are marked)."""
    edge = np.zeros(labels.shape, bool)
    for edges, classes, known in ((edge, labels, valid), (edge.T, labels.T, valid.T)):  # down, then across
        differ = (classes[1:] != classes[:-1]) & known[1:] & known[:-1]
        edges[1:] |= differ
        edges[:-1] |= differ
    return edge


def _widen(values, half, wanted, combine):
    """Grow a combination over windows of 2 * half + 1 columns to 2 * wanted + 1, clipped at the borders."""
    while half < wanted:
        step = min(half + 1, wanted - half)  # a longer one would leave a hole at a border
        wider = values.copy()
        combine(wider[:, step:], values[:, :-step], out=wider[:, step:])
        combine(wider[:, :-step], values[:, step:], out=wider[:, :-step])
        values = wider
        half = half + step
    return values


def match_boundaries(truth, prediction, valid, num_classes, tolerance):
    """Count boundary pixels, and those that have one of the same class in the other map within a distance.

    Args:
        truth, prediction, valid: of `checked_pair`. tolerance: pixels (Euclidean, equal counts as within), >= 0.
    Returns:
        int64 (4, C): of the truth all and matched, of the prediction all and matched.
    """
    sides = []
    for labels in (truth, prediction):
        edge = boundary_pixels(labels, valid) & (labels < num_classes)
        sides.append((np.argwhere(edge), labels[edge]))
    counts = []
    for one, another in (sides, sides[::-1]):
        matched = _within(*one, *another, tolerance)
        counts += [np.bincount(classes, minlength=num_classes) for classes in (one[1], one[1][matched])]
    return np.stack(counts)


def _within(points, classes, targets, target_classes, distance):
    """Say which points (n, 2) have a target (m, 2) of their class within a Euclidean distance: bool (n,)."""
    if not len(points) or not len(targets):
        return np.zeros(len(points), bool)
    from scipy.spatial import cKDTree  # here: it takes half a second, and a refused command needs none

    apart = 2.0 * distance + 2  # along a third axis: no other class is within reach
    tree = cKDTree(np.column_stack([targets, apart * target_classes]), balanced_tree=False, compact_nodes=False)
    query = np.column_stack([points, apart * classes])
    nearest, _ = tree.query(query, distance_upper_bound=distance + 1)  # what is farther is inf
    return nearest <= distance


def boundary_bands(truth, prediction, valid, num_classes, distance):
    """Count, by class, intersection and union of the pixels of a class that lie near another class.

    Args:
        truth, prediction, valid: of `checked_pair`. distance: whole pixels >= 1; a pixel is near where a valid one of
            another class lies within this chessboard distance, in its own map.
    Returns:
        int64 (2, C)
    """
    bands = [_near_another(labels, valid, distance) for labels in (truth, prediction)]
    both = bands[0] & bands[1] & (truth == prediction)
    common, *sizes = (
        np.bincount(labels[kept], minlength=num_classes + 1)[:num_classes]
        for labels, kept in ((truth, both), (truth, bands[0]), (prediction, bands[1]))
    )
    return np.stack([common, sum(sizes) - common])


def _near_another(labels, valid, distance):
    def window(values, combine):
        return _widen(_widen(values, 0, distance, combine).T, 0, distance, combine).T

    largest = window(np.where(valid, labels, np.uint8(0)), np.maximum)
    smallest = window(np.where(valid, labels, np.uint8(255)), np.minimum)
    return valid & ((largest != labels) | (smallest != labels))


class BoundaryScores:
    """Boundary F1 and boundary IoU of many images; memory does not grow with their number.

    Boundary F1: Csurka et al. 2013, averaged as in SegNet (Badrinarayanan et al. 2017): for each image and class the
    F1 of precision and recall of boundary pixels (valid, with a valid 4-neighbour of another class) that have one of
    the same class in the other map at most `tolerance` pixels away; the mean over the classes in the truth of the
    image, then over images. A class without boundary in both maps is left out, one with it in one map only scores 0.
    Boundary IoU: Cheng et al. 2021 (arXiv 2103.16562): by class, the IoU of its pixels within `distance` of another
    class, summed over images as for mean IoU. Deviations: one sum instead of one IoU per instance; image borders and
    void are not boundaries.

    Args:
        classes: C different names.
        tolerance: pixels (Euclidean) of F1; None is 0.75 % of each image's diagonal.
        distance: pixels (chessboard) of IoU, a whole number; None is 0.5 % of each image's diagonal, at least 1.
    Raises:
        ValueError: names that repeat, a tolerance below 0, a distance that is not a whole number above 0.
    """

    def __init__(self, classes, *, tolerance=None, distance=None):
        self.classes = tuple(classes)
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise InputError(f"Class names must be different and at least one, got {self.classes}.")
        if tolerance is not None and not 0 <= tolerance < math.inf:
            raise InputError(f"tolerance must be 0 pixels or more, got {tolerance}.")
        if distance is not None and (distance < 1 or distance != int(distance)):
            raise InputError(f"distance must be a whole number of pixels, 1 or more, got {distance}.")
        self.tolerance = tolerance
        self.distance = distance
        self.images = 0
        self._f1 = np.zeros((2, len(self.classes)))  # sum and number of the images' F1, by class
        self._mean_f1 = np.zeros(2)  # the same of their means
        self._bands = np.zeros((2, len(self.classes)), np.int64)

    def update(self, truth, prediction):
        """Add an image: integer class ids (H, W) twice; ValueError for other arrays."""
        classes = len(self.classes)
        pair = checked_pair(truth, prediction, classes)
        diagonal = math.hypot(*pair[0].shape)
        tolerance = self.tolerance
        if tolerance is None:
            tolerance = F1_TOLERANCE * diagonal
        distance = int(self.distance or max(1, round(IOU_DISTANCE * diagonal)))
        f1 = _image_f1(match_boundaries(*pair, classes, tolerance))
        present = np.bincount(pair[0][pair[2]], minlength=classes) > 0
        scored = present & ~np.isnan(f1)
        self._f1 += np.where(scored, f1, 0), scored
        if scored.any():
            self._mean_f1 += f1[scored].mean(), 1
        self._bands += boundary_bands(*pair, classes, distance)
        self.images += 1

    def result(self):
        """Return what was found as a dict (`to_json` writes it); what cannot be scored is nan."""
        with np.errstate(invalid="ignore"):
            f1 = self._f1[0] / self._f1[1]
            iou = self._bands[0] / self._bands[1]
            mean_f1 = float(self._mean_f1[0] / self._mean_f1[1])
            known = iou[~np.isnan(iou)]
            mean_iou = float(known.sum() / len(known))
        tolerance = self.tolerance
        if tolerance is None:
            tolerance = f"{100 * F1_TOLERANCE:g} % of the diagonal"
        rows = zip(self.classes, f1.tolist(), iou.tolist(), strict=True)
        return {
            "boundary_f1": mean_f1,
            "boundary_iou": mean_iou,
            "tolerance": tolerance,
            "distance": self.distance or f"{100 * IOU_DISTANCE:g} % of the diagonal",
            "images": self.images,
            "per_class": {name: {"boundary_f1": a, "boundary_iou": b} for name, a, b in rows},
        }

    def __str__(self):
        found = self.result()
        width = max(len(name) for name in (*self.classes, "mean"))
        lines = [f"{'':<{width}}  boundary F1  boundary IoU"]
        for name, row in {"mean": found, **found["per_class"]}.items():
            f1, iou = (f"{row[k]:.4f}".replace("nan", "-") for k in ("boundary_f1", "boundary_iou"))
            lines.append(f"{name:<{width}}{f1:>13}{iou:>14}")
        units = [f if isinstance(f, str) else f"{f:g} pixels" for f in (found["tolerance"], found["distance"])]
        lines.append(f"{self.images} images; F1 within {units[0]}, IoU within {units[1]} of another class")
        return "\n".join(lines)

    def to_json(self, path):
        """Write `result()` to a file, nan as null; completely or not at all."""
        write_json(path, self.result())


def _image_f1(counts):
    """float (C,) of `match_boundaries`; nan where neither map has a boundary."""
    truth, found, predicted, right = counts.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = found / truth
        precision = right / predicted
        f1 = 2 * precision * recall / (precision + recall)
    f1 = np.where((truth > 0) & (predicted > 0) & (found + right > 0), f1, 0.0)
    return np.where(truth + predicted > 0, f1, np.nan)
