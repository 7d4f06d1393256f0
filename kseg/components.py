"""Connected components of a label map, in NumPy: runs of rows, joined by a union that halves its work each round."""

import numpy as np

from kseg.errors import InputError


def connected_components(labels):
    """Number the 8-connected regions of equal value.

    Args:
        labels: integers (H, W).
    Returns:
        int32 (H, W): regions 0, 1, ... in the order of their first pixels, row by row. Every pixel is in one.
    Raises:
        ValueError: no integers (H, W).
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iub" or not labels.size:
        raise InputError(f"A label map must hold integers (H, W), got {labels.dtype} {labels.shape}.")
    begins = np.ones(labels.shape, bool)  # a run of equal values within a row begins here
    begins[:, 1:] = labels[:, 1:] != labels[:, :-1]
    run = np.cumsum(begins, dtype=np.int32).reshape(labels.shape) - 1
    root = _roots(int(run[-1, -1]) + 1, *_touching(labels, begins, run))
    number = np.cumsum(root == np.arange(len(root)), dtype=np.int32) - 1
    return number[root][run]


def _touching(labels, begins, run):
    """Pairs of runs of one value in neighbouring rows, as two arrays: (upper, lower)."""
    upper, lower, width = [], [], labels.shape[1]
    for shift in (-1, 0, 1):  # the lower pixel is left of, under or right of the upper one
        above = (slice(None, -1), slice(max(-shift, 0), width - max(shift, 0)))
        below = (slice(1, None), slice(max(shift, 0), width - max(-shift, 0)))
        touch = labels[above] == labels[below]
        touch[:, 1:] &= begins[above][:, 1:] | ~touch[:, :-1]  # two runs that touch along many pixels are one pair
        upper.append(run[above][touch])
        lower.append(run[below][touch])
    return np.concatenate(upper), np.concatenate(lower)


def _roots(count, a, b):
    """The smallest member of each member's group, int (count,), where members a[i] and b[i] are in one group."""
    parent = np.arange(count, dtype=np.int32)
    while len(a):
        first, second = parent[a], parent[b]  # both are roots
        apart = first != second
        a, b, first, second = a[apart], b[apart], first[apart], second[apart]
        np.minimum.at(parent, np.maximum(first, second), np.minimum(first, second))
        while True:
            grand = parent[parent]
            if np.array_equal(grand, parent):
                break
            parent = grand
    return parent
