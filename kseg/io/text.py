"""Sizes and lists of names as messages show them."""


def size_text(array_or_size) -> str:
    """Return "WIDTHxHEIGHT" of an array or a (height, width)."""
    height, width = getattr(array_or_size, "shape", array_or_size)[:2]
    return f"{width}x{height}"


def first_names(names, most) -> str:
    """Return names as text, the first `most` of them where there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
