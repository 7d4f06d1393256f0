"""A photograph under the colours of its label map, with a legend."""

import numpy as np

from kseg.visualization.label_maps import UNKNOWN_COLOUR, bands, colorize, draw_legend

_LEGEND_WIDTH = 960  # pixels of a picture in which the legend's text has 15
_MOST_LEGEND = 1 / 4  # of a frame's height that its legend may cover


def overlay(image, label, palette):
    """Return the mean of a photograph and its label map's colours, uint8 (H, W, 3).

    Args:
        image: uint8 RGB (H, W, 3). label: class ids (H, W). palette: a colour (R, G, B) for each class; an id without
            one is white.
    """
    blend = np.empty_like(image)
    for rows in bands(len(image)):
        colours = colorize(label[rows], palette)
        blend[rows] = (image[rows].astype(np.uint16) + colours + 1) // 2
    return blend


def with_legend(picture, label, classes, palette):
    """Return a picture with a legend below it of the classes in its label map, uint8 (H + h, W or more, 3).

    Args:
        picture: uint8 RGB (H, W, 3). label: class ids, uint8 (H, W). classes, palette: names and colours; an id without
            one is "unknown", white.
    """
    counts = sum(np.bincount(label[rows].ravel(), minlength=256) for rows in bands(len(label)))
    there = np.flatnonzero(counts[: len(classes)])
    names = [classes[k] for k in there]
    colours = [palette[k] for k in there]
    if counts[len(classes) :].any():
        names.append("unknown")
        colours.append(UNKNOWN_COLOUR)
    height, width = picture.shape[:2]
    legend = np.asarray(draw_legend(names, colours, width, _scale(width)))
    page = np.full((height + len(legend), legend.shape[1], 3), 255, np.uint8)
    page[:height, :width] = picture
    page[height:] = legend
    return page


def frame_legend(height, width, classes, palette):
    """Return a legend of all classes to lay over the lowest rows of a video's frames, uint8 (h, W, 3).

    It is the same for all frames and covers at most a quarter of them; in frames that are smaller it has no rows.
    """
    legend = np.asarray(draw_legend(classes, palette, width, _scale(width)))
    if len(legend) > _MOST_LEGEND * height or legend.shape[1] > width:
        return np.empty((0, width, 3), np.uint8)
    return legend


def _scale(width):
    return max(1.0, width / _LEGEND_WIDTH)
