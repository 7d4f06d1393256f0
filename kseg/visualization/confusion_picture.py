"""The confusion matrix of an evaluation as a CSV file and as a picture."""

import csv
import io
import os

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kseg.io.files import write_atomic
from kseg.visualization.fonts import font_for

_CELL = 34  # pixels
_GAP = 10
_FULL = np.array([8, 60, 125])  # the colour of 100 %
_WRONG = np.array([150, 25, 20])  # of 100 % off the diagonal
_NO_TRUTH = (225, 225, 225)


def write_confusion_csv(scores, path):
    """Write the counts of pixels: a row for each true class, a column for each predicted one and one for the rest.

    Args:
        scores: kseg.metrics.Scores. path: the file, completely or not at all; UTF-8, commas, first row and column are
            names.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["truth \\ prediction", *scores.classes, "outside the classes"])
    for name, row in zip(scores.classes, scores.confusion_matrix.tolist(), strict=True):
        writer.writerow([name, *row])
    write_atomic(os.fspath(path), text.getvalue().encode())


def draw_confusion_matrix(scores, path):
    """Draw the matrix as a PNG: each row's shares in percent, right ones blue, wrong ones red.

    A share that rounds to 0 has no number, a class without a pixel of truth is grey. The column of predictions outside
    the classes is drawn where there are any.

    Args:
        scores: kseg.metrics.Scores. path: the file, completely or not at all.
    """
    matrix = scores.confusion_matrix
    columns = [*scores.classes, "outside"]
    if not matrix[:, -1].any():
        matrix = matrix[:, :-1]
        columns = columns[:-1]
    font, columns = font_for(columns, 15)
    names = columns[: len(scores.classes)]
    small = ImageFont.load_default(size=13)
    title = "truth (rows) against prediction (columns), percent of each row"
    margin = int(max(font.getlength(name) for name in columns)) + 2 * _GAP
    head = 15 + 2 * _GAP
    top = head + margin
    width = margin + len(columns) * _CELL + _GAP
    width = max(width, int(font.getlength(title)) + 2 * _GAP)
    page = Image.new("RGB", (width, top + len(matrix) * _CELL + _GAP), "white")
    draw = ImageDraw.Draw(page)
    draw.text((_GAP, head // 2), title, fill="black", font=font, anchor="lm")
    _write_upright(page, columns, margin, head, margin, font)
    for r, (name, row) in enumerate(zip(names, matrix, strict=True)):
        y = top + r * _CELL
        draw.text((margin - _GAP, y + _CELL // 2), name, fill="black", font=font, anchor="rm")
        for c, count in enumerate(row.tolist()):
            box = (margin + c * _CELL, y, margin + (c + 1) * _CELL, y + _CELL)
            if row.any():
                _cell(draw, box, count / row.sum(), r == c, small)
            else:
                draw.rectangle(box, fill=_NO_TRUTH, outline="lightgray")
    picture = io.BytesIO()
    page.save(picture, "PNG")
    write_atomic(os.fspath(path), picture.getvalue())


def _write_upright(page, names, left, top, height, font):
    """Write the columns' names from bottom to top."""
    for i, name in enumerate(names):
        line = Image.new("RGB", (height, _CELL), "white")
        ImageDraw.Draw(line).text((_GAP, _CELL // 2), name, fill="black", font=font, anchor="lm")
        page.paste(line.rotate(90, expand=True), (left + i * _CELL, top))


def _cell(draw, box, share, right, font):
    """Fill a cell; `share` in 0..1."""
    colour = 255 + share**0.6 * ((_FULL if right else _WRONG) - 255)  # bends so that a few per cent are seen
    draw.rectangle(box, fill=tuple(np.rint(colour).astype(int).tolist()), outline="lightgray")
    if round(100 * share):
        centre = ((box[0] + box[2]) // 2, (box[1] + box[3]) // 2)
        draw.text(centre, f"{100 * share:.0f}", fill="white" if share > 0.35 else "black", font=font, anchor="mm")
