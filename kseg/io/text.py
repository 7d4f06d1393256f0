"""Sizes and lists of names as messages show them."""


def size_text(array_or_size) -> str:
    """Return "WIDTHxHEIGHT" of an array or a (height, width)."""
    height, width = getattr(array_or_size, "shape", array_or_size)[:2]
    return f"{width}x{height}"


def count_text(count: int, one: str, many: str | None = None) -> str:
    """Return "1 image", "2 images"; `many` is the plural where it is more than an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def first_names(names, most) -> str:
    """Return names as text, the first `most` of them where there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
