"""Pictures of label maps, with NumPy and Pillow alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from kseg.io.errors import InputError
from kseg.io.files import StrPath, replacing
from kseg.visualization.fonts import font_for

_IGNORED_COLOURS = ((0, 0, 0), (128, 128, 128), (224, 224, 224))
UNKNOWN_COLOUR = (255, 255, 255)  # an id that is neither a class nor ignored: it must be seen
_MADE_BY = ("Software", "kseg")  # a text in each PNG
_GAP = 8  # pixels
_SWATCH = 18
_TEXT = 15
_BAND = 256  # rows


def colorize(label: np.ndarray, palette: Sequence[Sequence[int]], ignore_label: int = 255) -> np.ndarray:
    """Paints a label map: each class in its colour, `ignore_label` in `ignored_colour`, any other id white.

    Args:
        label: integers (H, W).
        palette: one (R, G, B) in 0..255 per class.
    Returns: uint8 RGB (H, W, 3).
    Raises: ValueError for a label that is no (H, W) of integers, or a palette that is not (C, 3) in 0..255.
    """
    label = np.asarray(label)
    palette = np.asarray(palette)
    if label.ndim != 2 or label.dtype.kind not in "iu":
        raise InputError(f"A label map must hold integers (H, W), got {label.dtype} {label.shape}.")
    if palette.ndim != 2 or palette.shape[1] != 3 or palette.min() < 0 or palette.max() > 255:
        raise InputError(f"A palette must hold one (R, G, B) in 0..255 per class, got {palette.tolist()}.")
    classes = len(palette)
    table = np.concatenate([palette, [ignored_colour(palette), UNKNOWN_COLOUR]]).astype(np.uint8)
    colours = np.empty((*label.shape, 3), np.uint8)
    for band in bands(len(label)):
        ids = label[band]
        rows = np.where((ids >= 0) & (ids < classes), ids, classes + 1).astype(np.intp)
        rows[ids == ignore_label] = classes
        colours[band] = table[rows]
    return colours


def ignored_colour(palette: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    """Return the colour (R, G, B) of pixels without a class: black, or a grey where a class is black."""
    taken = {tuple(map(int, colour)) for colour in palette}
    return next((colour for colour in _IGNORED_COLOURS if colour not in taken), _IGNORED_COLOURS[0])


def bands(height):
    """Give the rows of a picture as slices of a few hundred: large pictures then need little memory beside them."""
    return (slice(top, top + _BAND) for top in range(0, height, _BAND))


def prediction_gallery(
    rows: Sequence[tuple[np.ndarray | None, np.ndarray, np.ndarray]],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    path: StrPath,
    *,
    width: int = 400,
    ignore_label: int = 255,
) -> Path:
    """Writes a picture with a row of image | prediction | truth per example and a legend of the classes.

    Args:
        rows: (image, prediction, truth) each: uint8 RGB (H, W, 3), integers (H, W), integers (H, W). An image
            may be None; if all are, that column is left out, so that label maps show without photographs.
        the rest: as in `gallery`.
    Returns: the path written, a `pathlib.Path`.
    Raises: as `gallery`.
    """
    rows = list(rows)
    heads = ("image", "prediction", "truth")
    if rows and all(image is None for image, _, _ in rows):
        rows = [row[1:] for row in rows]
        heads = heads[1:]
    return gallery(rows, heads, classes, palette, path, width=width, ignore_label=ignore_label)


def gallery(rows, heads, classes, palette, path, *, width=400, ignore_label=255):
    """Writes a picture of rows of images and label maps under column heads, and a legend of the classes.

    Args:
        rows: each as long as heads: uint8 RGB (H, W, 3), integers (H, W), or None for an empty place.
        heads: a text for each column. classes, palette: C names and C colours (R, G, B).
        path: the file to write (its suffix gives the format); it is there completely or not at all.
        width: pixels of a column; wider pictures shrink to it (label maps by nearest neighbour), those of at
            most half of it grow by a whole factor.
    Returns: the path written, a `pathlib.Path`.
    Raises: ValueError for no rows, names and colours of different numbers, or a width below 64.
    """
    if not rows or len(classes) != len(palette) or width < 64:
        given = f"{len(rows)} rows, {len(classes)} names, {len(palette)} colours, width {width}"
        raise InputError(f"A gallery needs rows, a colour per class and a width of 64 or more, got {given}.")
    tiles = [[_tile(cell, palette, width, ignore_label) for cell in row] for row in rows]
    column = max(tile.width for row in tiles for tile in row if tile)
    heights = [max(tile.height for tile in row if tile) for row in tiles]
    font = ImageFont.load_default(size=_TEXT)
    total = len(heads) * (column + _GAP) + _GAP
    legend = draw_legend([*classes, "ignored"], [*palette, ignored_colour(palette)], total)
    top = _TEXT + 2 * _GAP
    page = Image.new("RGB", (total, top + sum(heights) + _GAP * len(rows) + legend.height), "white")
    draw = ImageDraw.Draw(page)
    for i, head in enumerate(heads):
        x = _GAP + i * (column + _GAP)
        draw.text((x + column // 2, top // 2), head, fill="black", font=font, anchor="mm")
        y = top
        for row, height in zip(tiles, heights, strict=True):
            if row[i]:
                page.paste(row[i], (x + (column - row[i].width) // 2, y))
            y += height + _GAP
    page.paste(legend, (0, page.height - legend.height))
    return _save(page, path)


def _tile(cell, palette, width, ignore_label):
    if cell is None:
        return None
    is_label = np.ndim(cell) == 2
    array = colorize(cell, palette, ignore_label) if is_label else _checked_image(cell)
    tile = Image.fromarray(np.ascontiguousarray(array))
    scale = max(1, width // tile.width)  # a whole number: pixels of a small map stay square
    if tile.width > width:
        scale = width / tile.width
    size = (round(tile.width * scale), max(1, round(tile.height * scale)))
    return tile.resize(size, Image.Resampling.LANCZOS if scale < 1 and not is_label else Image.Resampling.NEAREST)


def _checked_image(image):
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"An image must be uint8 RGB (H, W, 3), got {image.dtype} {image.shape}.")
    return image


def draw_legend(names, colours, width, scale=1.0):
    """Draw swatches and names in as many equal columns as fit into `width`.

    The Pillow picture is wider only where one column needs that. scale: of text and swatches; 1 is text of 15 pixels.
    """
    gap = round(_GAP * scale)
    swatch = round(_SWATCH * scale)
    font, names = font_for(list(names), _TEXT * scale)
    step = max(int(font.getlength(name)) for name in names) + swatch + 3 * gap
    columns = max(1, (width - gap) // step)
    lines = -(-len(names) // columns)
    line = swatch + gap
    legend = Image.new("RGB", (max(width, step + gap), lines * line + gap), "white")
    draw = ImageDraw.Draw(legend)
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        x = gap + i % columns * step
        y = gap // 2 + i // columns * line
        draw.rectangle((x, y, x + swatch, y + swatch), fill=tuple(map(int, colour)), outline="gray")
        draw.text((x + swatch + gap, y + swatch // 2), name, fill="black", font=font, anchor="lm")
    return legend


def drawn_by_kseg(path):
    """Whether a file is a PNG as `gallery` writes it."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get(_MADE_BY[0]) == _MADE_BY[1]
    except (OSError, ValueError, SyntaxError):
        return False


def _save(page, path):
    text = PngImagePlugin.PngInfo()
    text.add_text(*_MADE_BY)
    with replacing(path) as temporary:
        page.save(temporary, pnginfo=text)
    return Path(path)
