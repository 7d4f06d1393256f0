"""Confusion matrices: the counts that every score derives from."""

import numpy as np

from kseg.io.errors import InputError, check_whole


def confusion_matrix(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int, ignore_label: int = 255
) -> tuple[np.ndarray, int]:
    """Counts pairs of (truth, prediction) over the valid pixels, in NumPy.

    Args:
        labels: integers of any shape; valid where in [0, num_classes) and not `ignore_label`.
        predictions: integer class ids of the same shape; one outside the classes goes to the last column.
    Returns:
        (matrix, out_of_range): int64 (C, C + 1); the count of labels neither a class nor `ignore_label`.
    Raises:
        ValueError: the shapes differ, or either array does not hold integers.
    """
    check_whole("num_classes", num_classes, 1)
    labels = np.asarray(labels)
    predictions = np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise InputError(f"Predictions must have the labels' shape {labels.shape}, got {predictions.shape}.")
    check_integers(labels, predictions)
    if labels.dtype == np.uint8 and num_classes < 256:
        return _byte_matrix(labels, predictions, num_classes, ignore_label)
    counted = labels != ignore_label
    valid = counted & (labels >= 0) & (labels < num_classes)
    truth = labels[valid].astype(np.int64)
    predicted = predictions[valid].astype(np.int64)
    predicted[(predicted < 0) | (predicted >= num_classes)] = num_classes
    columns = num_classes + 1
    cells = np.bincount(truth * columns + predicted, minlength=num_classes * columns)
    return cells.reshape(num_classes, columns), int(np.count_nonzero(counted)) - truth.size


def check_integers(truth, prediction):
    """Raise InputError unless both arrays hold integers; it names the one that does not."""
    for name, ids in (("truth", truth), ("prediction", prediction)):
        if ids.dtype.kind in "iu":
            continue
        whole = ids.dtype.kind in "fb" and bool((np.isfinite(ids) & (ids == np.floor(ids))).all())
        advice = "Cast it to integers." if whole else "Its values are not all whole numbers: give class ids."
        raise InputError(f"Class ids must be integers, got {ids.dtype} for the {name}. {advice}")


def _byte_matrix(labels, predictions, num_classes, ignore_label):
    """The same for labels of one byte: a pair is a two-byte number, and all possible pairs are counted."""
    if predictions.dtype != np.uint8:
        inside = (predictions >= 0) & (predictions < num_classes)
        predictions = np.where(inside, predictions, num_classes).astype(np.uint8)
    pairs = labels.astype(np.uint16) << 8 | predictions
    counts = np.bincount(pairs.ravel(), minlength=2**16).reshape(256, 256)
    if 0 <= ignore_label < 256:
        counts[ignore_label] = 0
    rows = counts[:num_classes]
    outside = rows[:, num_classes:].sum(axis=1, keepdims=True)
    return np.hstack([rows[:, :num_classes], outside]), int(counts[num_classes:].sum())
