"""Labels that can be read but are not what the class list says, recognised from ids and edges alone."""

import numpy as np

from kseg.data.labels import IGNORE_LABEL, INVALID_LABEL

_SMOOTH_SHARE = 0.15  # of the changes one way: drawn labels stay below .09 even at 64x128, smoothed ones pass .24
_LEAST_CHANGES = 64  # below, a share says nothing
_CITYSCAPES_IDS = 34
_CITYSCAPES_CLASSES = 19


def looks_like_training_ids(counts, info):
    """Return whether labels that should hold a dataset's raw ids hold its training ids (Cityscapes: 0..18) instead.

    All ids lie below the number of classes n (or are 255) while some classes have raw ids from n on, at least a third
    of 0..n-1 is there, two void ids besides the lowest among them, and a third of the pixels would be void. Labels of
    raw ids fail at least one of these conditions, except in a dataset made to meet them.

    Args:
        counts: (256,), pixels by id, of one label or of many. info: DatasetInfo, which says what ids mean.
    """
    table = info.label_set().table
    classes = info.label_set().num_classes
    counts = np.asarray(counts)
    known = np.flatnonzero(table < min(IGNORE_LABEL, INVALID_LABEL))
    present = np.flatnonzero(counts[:IGNORE_LABEL])
    if not len(present) or known[-1] < classes or present[-1] >= classes or len(present) < classes / 3:
        return False
    void = present[table[present] >= INVALID_LABEL]
    return bool((void > 0).sum() >= 2 and counts[void].sum() >= counts[present].sum() / 3)


def looks_like_label_ids(counts, info):
    """Return whether labels that should hold Cityscapes' 19 training ids hold its 34 regular ids instead.

    At least a tenth of the pixels have ids of 19..33, which such a class list lacks. Arguments as above.
    """
    label_set = info.label_set()
    counts = np.asarray(counts)
    beyond = slice(_CITYSCAPES_CLASSES, _CITYSCAPES_IDS)
    if label_set.num_classes != _CITYSCAPES_CLASSES or (label_set.table[beyond] != INVALID_LABEL).any():
        return False
    return bool(counts[beyond].sum() >= counts[:IGNORE_LABEL].sum() / 10 > 0)


def is_smoothed(label):
    """Return whether a label map was resized with a filter that blends ids: (H, W) of any integers.

    Between two regions such a filter leaves ids that lie strictly between theirs, along rows and along columns. Where
    labels are drawn, or resized by nearest neighbour, an id that lies between both its neighbours is rare, or there is
    an object of one pixel's width, such as the side of a car behind a pole: that is so along one direction alone.
    """
    shares = [share for share in map(_share_between, (label, label.T)) if share is not None]
    return bool(shares) and min(shares) > _SMOOTH_SHARE


def _share_between(label):
    """Return how many ids lie between both neighbours along rows, as a share of the changes; None of few changes."""
    left = label[:, :-2]
    centre = label[:, 1:-1]
    right = label[:, 2:]
    changes = np.count_nonzero(label[:, 1:] != label[:, :-1])
    if changes < _LEAST_CHANGES:
        return None
    between = ((left < centre) & (centre < right)) | ((left > centre) & (centre > right))
    return np.count_nonzero(between) / changes
