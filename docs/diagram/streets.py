"""Draws docs/pictures/streets.png, the first picture of the README.

python -m docs.diagram.streets [SEED SEED SEED]
"""

import sys

import numpy as np
from PIL import Image

from kseg.data.datasets import cityscapes
from kseg.data.synthetic.scene import draw_street
from kseg.visualization import colorize

SEEDS = (1, 6, 8)
SIZE = (192, 384)  # height, width of a street
GAP = 6


def picture(seeds=SEEDS):
    """Return a row of streets above the row of their label maps, on a clear ground: uint8 (H, W, 4)."""
    labels = cityscapes.info().label_set("train_ids")
    columns = []
    for seed in seeds:
        street, ids, _ = draw_street(seed, *SIZE)
        columns.append((street, colorize(labels.table[ids], labels.palette)))
    height, width = SIZE
    page = np.zeros((2 * height + GAP, len(seeds) * (width + GAP) - GAP, 4), np.uint8)
    for i, column in enumerate(columns):
        for j, part in enumerate(column):
            rows = slice(j * (height + GAP), j * (height + GAP) + height)
            columns_of_it = slice(i * (width + GAP), i * (width + GAP) + width)
            page[rows, columns_of_it, :3] = part
            page[rows, columns_of_it, 3] = 255
    return page


if __name__ == "__main__":
    given = tuple(map(int, sys.argv[1:])) or SEEDS
    drawn = Image.fromarray(picture(given)).quantize(256, method=Image.Quantize.FASTOCTREE)  # a third of the bytes
    drawn.save("docs/pictures/streets.png", optimize=True)
