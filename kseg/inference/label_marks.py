"""What a label map that kseg wrote says itself: which ids it holds."""

import io

import numpy as np
from PIL import Image

from kseg.io.images import BROKEN, large_images_allowed

CLASSES_FILE = "classes.json"  # beside label maps: their ids with names and colours
MADE_BY = "kseg label map"  # a text in each PNG: the version and the digest of the pixels that kseg wrote
_UNREADABLE = (*BROKEN, Image.DecompressionBombError)
_MARK = "kseg ids"  # a text in each PNG: "train", or the dataset's own id of each training id, "7 8 11"


def is_label_map(path):
    """Whether a file is a PNG that `predict` wrote: labels, colours, an overlay, ...; its header is enough."""
    if not str(path).lower().endswith(".png"):
        return False
    try:
        with large_images_allowed(), Image.open(path, formats=("PNG",)) as image:
            return MADE_BY in image.info
    except _UNREADABLE:
        return False


def mark_of(encoded):
    """Return which ids a label map holds that `predict` wrote.

    Args:
        encoded: the bytes of a PNG.
    Returns:
        "train"; a list of the dataset's own id of each training id; None for a file that does not say it.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG",)) as image:
            text = image.info.get(_MARK)
    except _UNREADABLE:
        return None
    if not isinstance(text, str):
        return None
    if text == "train":
        return text
    numbers = text.split(" ")
    if not all(number.isascii() and number.isdecimal() and int(number) <= 255 for number in numbers):
        return None
    return [int(number) for number in numbers]


def add_mark(text, mark):
    """Write a mark into the texts of a PNG (Pillow's PngInfo)."""
    text.add_text(_MARK, mark)


def to_training_ids(ids, mark):
    """Return label map (H, W) as training ids, 255 where an id is of no class; mark: of `mark_of`, not None."""
    if mark == "train":
        return ids
    table = np.full(256, 255, np.uint8)
    table[mark] = np.arange(len(mark))
    return table[ids]
