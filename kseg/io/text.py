"""Sizes, lists of names and differences as messages show them; names that addresses hold."""

import difflib
import re

from kseg.io.errors import InputError

_MOST_DIGITS = 12


def size_text(array_or_size) -> str:
    """Return "WIDTHxHEIGHT" of an array or a (height, width)."""
    height, width = getattr(array_or_size, "shape", array_or_size)[:2]
    return f"{width}x{height}"


def did_you_mean(word: str, known) -> str:
    """Return " Did you mean unet?" for a word that is much like one of the known; else ""."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f" Did you mean {near[0]}?" if near else ""


def bytes_text(count: float) -> str:
    """Return a number of bytes as text: "16.6 MB", and below a tenth of a megabyte "48.9 kB"."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def count_text(count: int, one: str, many: str | None = None) -> str:
    """Return "1 image", "2 images"; `many` is the plural where it is more than an s."""
    if count == 1:
        return f"1 {one}"
    return f"{count} {many or one + 's'}"


def first_names(names, most) -> str:
    """Return names as text, the first `most` of them where there are more."""
    shown = ", ".join(map(str, names[:most]))
    if len(names) > most:
        shown += f" and {len(names) - most} more"
    return shown


def error_text(error: BaseException, most: int = 400) -> str:
    """Return what a library's error says as one line, cut after so many characters, or its kind if it says nothing.

    The line has no full stop at its end, so that it fits into a sentence.
    """
    line = " ".join(str(error).split()).rstrip(". ")
    if len(line) > most:
        line = f"{line[:most]} [...]"
    return line or type(error).__name__


def listed(names) -> str:
    """Return "a", "a and b", "a, b and c"."""
    *most, last = map(str, names)
    if not most:
        return last
    return f"{', '.join(most)} and {last}"


def agreeing_digits(first: float, second: float, low: float, high: float, least: int = 4) -> int:
    """Return how many decimals show two numbers and the interval of second minus first without contradiction.

    The difference shown is that of the two numbers as shown (`shown_gap`). It lies within the interval as shown if it
    does in truth, and an interval that excludes 0 excludes it as shown too. All nan: `least`.
    """
    for digits in range(least, _MOST_DIGITS):
        gap = shown_gap(first, second, digits)
        ends = round(low, digits), round(high, digits)
        within = ends[0] <= gap <= ends[1] or not low <= second - first <= high
        excludes = ends[0] > 0 or ends[1] < 0
        if within and excludes == (low > 0 or high < 0):
            return digits
    return _MOST_DIGITS


def shown_gap(first: float, second: float, digits: int) -> float:
    """Return second minus first, both as shown with so many decimals."""
    return round(round(second, digits) - round(first, digits), digits)


def decimals(value: float, digits: int, sign: str = "") -> str:
    """Return a number with so many decimals, no -0.00 among them. sign: "+" shows that of positive numbers too."""
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def signed(value: float, digits: int) -> str:
    """Return a number with so many decimals and its sign; a zero is "+0.00"."""
    return decimals(value, digits, "+")


def checked_name(name) -> str:
    """Return a served model's name; InputError unless every address, folder and server takes it as it is."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(
            f"A served model's name must be letters, digits, dots, dashes and underscores, got {name!r}. Give another."
        )
    return name
