"""Sizes and lists of names as messages show them."""


def size_text(array_or_size) -> str:
    """Return "WIDTHxHEIGHT" of an array or a (height, width)."""
    height, width = getattr(array_or_size, "shape", array_or_size)[:2]
    return f"{width}x{height}"


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


def listed(names) -> str:
    """Return "a", "a and b", "a, b and c"."""
    *most, last = map(str, names)
    if not most:
        return last
    return f"{', '.join(most)} and {last}"
