"""The reliability diagram of an evaluation: how often pixels are right against how sure the model was of them."""

from PIL import Image, ImageDraw, ImageFont

from kseg.io.files import replacing

_SIDE = 420  # pixels of the plot
_SHARE = 110  # height of the plot of pixels
_LEFT = 70
_TOP = 70
_GAP = 46
_BAR = (8, 60, 125)
_MISSING = (214, 120, 110)
_PALE = (225, 225, 225)
_INK = (30, 30, 30)


def draw_reliability(calibration, path):
    """Draw the bins as a PNG: accuracy against confidence above, the share of pixels below.

    A blue bar is a bin's accuracy. Red reaches from there to its mean confidence: where red stands above blue, the
    model is too sure. A bin without pixels has no bar.

    Args:
        calibration: kseg.metrics.calibration.Calibration. path: the file, completely or not at all.
    """
    page = Image.new("RGB", (_LEFT + _SIDE + 30, _TOP + _SIDE + _GAP + _SHARE + 56), "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=15)
    small = ImageFont.load_default(size=13)
    error = calibration.expected_error
    draw.text((_LEFT, 12), f"expected calibration error {error:.4f}", _INK, font)
    draw.text((_LEFT, 36), "blue: right   red: how far confidence is from it", _INK, small)
    _plot(draw, calibration, small)
    _shares(draw, calibration, small)
    with replacing(path) as picture:
        page.save(picture, "PNG")


def _x(value):
    return _LEFT + value * _SIDE


def _plot(draw, calibration, font):
    bottom = _TOP + _SIDE

    def y(value):
        return bottom - value * _SIDE

    for tick in (0, 0.25, 0.5, 0.75, 1):
        draw.line([(_LEFT, y(tick)), (_LEFT + _SIDE, y(tick))], _PALE)
        draw.text((_LEFT - 8, y(tick)), f"{tick:g}", _INK, font, anchor="rm")
    bins = zip(
        calibration.edges,
        calibration.edges[1:],
        calibration.pixels,
        calibration.confidence,
        calibration.accuracy,
        strict=False,
    )
    for low, high, pixels, confidence, accuracy in bins:
        if not pixels:
            continue
        left, right = _x(low) + 1, _x(high) - 1
        draw.rectangle([left, y(accuracy), right, bottom], _BAR)
        top, end = sorted((y(accuracy), y(confidence)))
        draw.rectangle([left, top, right, end], outline=_MISSING, width=3)
    draw.line([(_LEFT, bottom), (_LEFT + _SIDE, _TOP)], _INK, 1)
    draw.rectangle([_LEFT, _TOP, _LEFT + _SIDE, bottom], outline=_INK)


def _shares(draw, calibration, font):
    top = _TOP + _SIDE + _GAP
    bottom = top + _SHARE
    total = max(1, calibration.pixels.sum())
    largest = max(calibration.pixels.max() / total, 1e-9)
    draw.text((_LEFT, top - 22), f"share of pixels, at most {100 * largest:.0f} %", _INK, font)
    for low, high, pixels in zip(calibration.edges, calibration.edges[1:], calibration.pixels, strict=False):
        height = pixels / total / largest * _SHARE
        if height >= 1:
            draw.rectangle([_x(low) + 1, bottom - height, _x(high) - 1, bottom], _BAR)
    draw.rectangle([_LEFT, top, _LEFT + _SIDE, bottom], outline=_INK)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        draw.text((_x(tick), bottom + 8), f"{tick:g}", _INK, font, anchor="mt")
    draw.text((_LEFT + _SIDE / 2, bottom + 30), "confidence", _INK, font, anchor="mt")
