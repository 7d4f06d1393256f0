"""Images that are nearly the same, found by a difference hash and confirmed on thumbnails."""

import numpy as np
from PIL import Image

THUMBNAIL = (18, 32)  # height, width in pixels
_HASH = (8, 8)  # bits down and across
_NEAR_BITS = 12  # of 64: what may differ after scaling, JPEG, a change of brightness or some noise
_NEAR_GREY = 10.0  # mean absolute difference of two thumbnails in grey levels, their own brightness taken out
_BLOCK = 512  # rows compared at a time


def thumbnail(image):
    """Return a uint8 RGB image (H, W, 3) as grey levels, uint8 of THUMBNAIL's size."""
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize(THUMBNAIL[::-1], Image.Resampling.BOX))


def difference_hash(thumbnails):
    """Return 64 bits for each thumbnail (n, h, w): whether each cell of an 8x9 grid is darker than its right neighbour.

    The difference hash as it is commonly used ("dHash"): scaling, compression and brightness leave most bits.
    Returns: uint64 (n,).
    """
    down, across = _HASH
    grids = [np.asarray(Image.fromarray(t).resize((across + 1, down), Image.Resampling.BOX), int) for t in thumbnails]
    bits = np.array([grid[:, 1:] > grid[:, :-1] for grid in grids], np.uint8).reshape(len(grids), down * across)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def near_duplicates(first, second):
    """Return the pairs of nearly equal images between two stacks of thumbnails, each image at most once.

    Args:
        first, second: uint8 (n, h, w) and (m, h, w) of `thumbnail`.
    Returns:
        list of (index in first, index in second, mean absolute difference in grey levels), in order.
    """
    hashes = difference_hash(first)
    hashes_there = difference_hash(second)
    found = []
    for start in range(0, len(first), _BLOCK):  # a block's distances, not all n x m, are in memory
        distances = np.bitwise_count(hashes[start : start + _BLOCK, None] ^ hashes_there[None])
        for row, column in zip(*np.nonzero(distances <= _NEAR_BITS), strict=True):
            difference = _difference(first[start + row], second[column])
            if difference <= _NEAR_GREY:
                found.append((int(start + row), int(column), difference))
    return found


def _difference(first, second):
    centred = [image.astype(np.float32) - image.mean() for image in (first, second)]
    return float(np.abs(centred[0] - centred[1]).mean())
