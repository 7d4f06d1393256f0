"""A row of the plan, executed by NumPy."""

import numpy as np
from PIL import Image

from kseg.data.labels import IGNORE_LABEL

PADDING = (124, 116, 104)  # ImageNet's mean pixel (RGB): close to zero after normalisation


def placement(size, scale, share, target):
    """Return (scaled size, start of the crop, cropped size, padding before it) along one axis.

    An image of `size` is scaled; one that is then larger than `target` is cropped to it, a smaller one padded;
    `share` in [0, 1) says where.
    """
    scaled = max(1, int(size * scale + 0.5))
    offset = int(share * (abs(scaled - target) + 1))
    if scaled >= target:
        return scaled, offset, target, 0
    return scaled, 0, scaled, offset


def nearest(size, scaled, arange=np.arange):
    """Return which of `size` pixels each of `scaled` takes: the one under its centre, in whole numbers, so exact."""
    return (2 * arange(scaled) + 1) * size // (2 * scaled)


def nearest_label(label, height, width):
    """Resize a label map without making new ids."""
    return label[nearest(label.shape[0], height)][:, nearest(label.shape[1], width)]


def smooth_label(label, height, width):
    """Resize a map of raw ids as if they were grey levels (bilinear, antialiased), which makes false ids.

    What the paper's authors did to the labels (Fischer and Malhotra 2021, their code); Pillow rounds to whole ids.
    """
    return np.asarray(Image.fromarray(label).resize((int(width), int(height)), Image.Resampling.BILINEAR))


def apply_row(image, label, row, height, width, crop=None, resize_label=nearest_label):
    """Execute a plan row with NumPy and Pillow: the path of backends without TensorFlow.

    Args:
        image: uint8 (h, w, 3) RGB. label: uint8 (h, w), 255 = ignore. row: one element of `epoch_plan`.
        height, width: the size in pixels that the image is brought to, times the row's scale.
        crop: (height, width) of what comes out, None for height and width. resize_label: (label, height, width) ->
            label, in the ids that are to come out.
    Returns:
        uint8 (H, W, 3) and uint8 (H, W) of the crop's size; padding is PADDING and 255.
    """
    target_height, target_width = crop or (height, width)
    scaled_height, top, rows, above = placement(height, row["scale"], row["top"], target_height)
    scaled_width, left, columns, before = placement(width, row["scale"], row["left"], target_width)
    window = (slice(top, top + rows), slice(left, left + columns))
    place = (slice(above, above + rows), slice(before, before + columns))
    size = (scaled_width, scaled_height)
    part = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))[window]
    part_label = resize_label(label, scaled_height, scaled_width)[window]
    if row["flip"]:
        part = part[:, ::-1]
        part_label = part_label[:, ::-1]
    part = part.astype(np.float32) @ row["color"][:, :3].T + row["color"][:, 3]
    placed = np.full((target_height, target_width, 3), PADDING, np.uint8)
    placed[place] = np.rint(np.clip(part, 0, 255))
    placed_label = np.full((target_height, target_width), IGNORE_LABEL, np.uint8)
    placed_label[place] = part_label
    return placed, placed_label
