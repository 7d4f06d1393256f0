"""Which images belong together: those of one drive, or of a block of consecutive frames, as their names tell."""

import re
from typing import NamedTuple

from kseg.io.errors import InputError
from kseg.io.text import count_text, first_names

BLOCK = 25  # frames of a block where nothing else is said
FEW = 10  # groups; below, what is drawn from them tells nothing of others
UNNAMED = "unnamed"  # the drive whose name is empty
_BLOCKS = re.compile(r"block:([1-9]\d{0,8})")


class Groups(NamedTuple):
    """The groups of the images of a split.

    by: what they were made by: "drive", "block:25", a regular expression, or "image", each image for itself. of: the
    group of each image. drives: the names of all drives; empty where they are not known.
    """

    by: str
    of: tuple[str, ...]
    drives: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The groups in the order of their first images."""
        return tuple(dict.fromkeys(self.of))

    @property
    def unit(self) -> str:
        """What one of them is, in a word."""
        return {"drive": "drive", "image": "image"}.get(self.by, "block" if self.by.startswith("block:") else "group")

    @property
    def alone(self) -> str:
        """What an interval of so few is of, "of these drives alone"; "" where there are enough of them."""
        if 0 < len(self.drives) < FEW:
            return "of this drive alone" if len(self.drives) == 1 else f"of these {len(self.drives)} drives alone"
        count = len(self.names)
        return f"of these {count} {self.unit}s alone" if count < FEW and self.by != "image" else ""

    def meaning(self) -> str:
        """Say how many independent groups there are, and what an interval of them can tell."""
        count = len(self.names)
        drives = f"{count_text(len(self.drives), 'drive')} ({first_names(self.drives, 5)})"
        if self.by == "image":
            text = f"Independent groups: {count_text(count, 'image')}, each for itself."
            if not self.drives:
                return (
                    f"{text} The names show no drives and no consecutive frames. If there are any, the interval is too "
                    "narrow: say with group_by (--group_by) which images belong together."
                )
            return (
                f"{text} All are of {drives}, too few for blocks of {BLOCK}. Frames that follow each other are alike, "
                "so the interval is too narrow, and it is of this drive alone."
            )
        if self.unit == "drive":
            text = f"Independent groups: {drives}."
        elif self.unit == "block":
            text = f"Independent groups: {count_text(count, 'block')} of {self.by[6:]} consecutive frames, of {drives}."
        else:
            text = f"Independent groups: {count} ({first_names(self.names, 5)}), by {self.by}"
            text += f", of {drives}." if self.drives else "."
        if len(self.drives) == 1:
            return (
                f"{text} The interval says how much the difference changes from one part of this drive to another. It "
                "says nothing of other drives."
            )
        if 1 < len(self.drives) < FEW:
            return f"{text} So few drives tell nothing of others: the interval is {self.alone}."
        if count < FEW:
            return f"{text} So few tell nothing of others: the interval is {self.alone}."
        return text


def check_group_by(by, setting: str = "group_by") -> None:
    """Raise InputError, which names the setting, unless `by` says a rule of `groups_of`, whatever the names are."""
    if not isinstance(by, str) or not by:
        raise InputError(f"{setting} must be drive, block:{BLOCK} or a regular expression, got {by!r}.")
    if by.startswith("block:"):
        if not _BLOCKS.fullmatch(by):
            raise InputError(f"{setting} block:N needs a whole number of frames, at least 1, got {by!r}.")
    elif by != "drive":
        _pattern(by, setting)


def groups_of(names, by: str, rule: str, setting: str = "group_by") -> Groups:
    """Group images by their names.

    Args:
        names: of the images of a split. by: "drive"; "block:25", which cuts each drive's frames, in the order of the
            numbers in their names, into blocks of 25 (a rest of less than half a block stays with the block before); or
            a regular expression, found anywhere in a name, whose first group is the image's group.
        rule: the dataset's, of `kseg.data.datasets.Dataset.drive`.
        setting: what holds `by`, for the messages.
    Raises:
        InputError: `by` is none of these; a name that does not match; a dataset without a rule.
    """
    check_group_by(by, setting)
    if by != "drive" and not by.startswith("block:"):
        of = _matched(_pattern(by, setting).search, names, f"{setting} {by}")
        if "" in of:
            raise InputError(
                f"{setting} {by} must find the group in every name, but finds nothing in {names[of.index('')]!r}."
            )
        return Groups(by, tuple(of), _drives_shown(names, rule))
    if not rule:
        raise InputError(
            f"{setting} {by} needs a dataset whose names tell the drives, and this one has no rule for that. Give a "
            "regular expression whose first group is the drive."
        )
    size = _BLOCKS.fullmatch(by)
    found = _matched(_pattern(rule).fullmatch, names, f"{setting} {by}, whose rule for a drive is {rule},")
    drives = [drive or UNNAMED for drive in found]
    of = _blocks(names, drives, int(size[1])) if size else drives
    return Groups(by, tuple(of), tuple(sorted(set(drives))))


def shown_groups(names, rule: str) -> Groups:
    """Group images by what their names show: several drives, else blocks of one drive, else each for itself.

    Args:
        names, rule: as in `groups_of`.
    """
    names = tuple(names)
    if not _drives_shown(names, rule):
        return Groups("image", names)
    by_drive = groups_of(names, "drive", rule)
    if len(by_drive.names) > 1:
        return by_drive
    blocks = groups_of(names, f"block:{BLOCK}", rule)
    return blocks if len(blocks.names) > 1 else Groups("image", names, by_drive.drives)


def _drives_shown(names, rule):
    """Return the names of all drives in order; none where a name does not show its drive."""
    matches = [_pattern(rule).fullmatch(name) for name in names] if rule else [None]
    return () if None in matches else tuple(sorted({match[1] or UNNAMED for match in matches}))


def check_rule(rule) -> None:
    """Raise InputError unless a dataset's rule is empty or a regular expression with a group."""
    try:
        if rule != "":
            _pattern(rule)
    except (InputError, TypeError):
        raise InputError(f"drive must be a regular expression with a group, got {str(rule)[:60]!r}") from None


def _pattern(text: str, setting: str = "group_by") -> re.Pattern:
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        must = f"{setting} must be drive, block:{BLOCK} or a regular expression"
        raise InputError(f"{must}, got {text!r}: {error}.") from None
    if not pattern.groups:
        raise InputError(
            f"{setting} is drive, block:{BLOCK} or a regular expression with a group in brackets, got {text!r}."
        )
    return pattern


def _matched(match, names, what: str) -> list[str]:
    """Return the first group of each name's match."""
    found = []
    for name in names:
        one = match(name)
        if one is None or one[1] is None:
            raise InputError(f"{what} must match every name, but does not match {name!r}.")
        found.append(one[1])
    return found


def _blocks(names, drives, size: int) -> list[str]:
    """Return the block of each image, called by its first and last frame."""
    of = [""] * len(drives)
    for drive in dict.fromkeys(drives):
        frames = [i for i, other in enumerate(drives) if other == drive]
        frames.sort(key=lambda i: _numbered(names[i]))
        count = max(1, (len(frames) + size // 2) // size)
        for block in range(count):
            end = None if block == count - 1 else (block + 1) * size
            part = frames[block * size : end]
            for i in part:
                of[i] = f"{names[part[0]]} to {names[part[-1]]}"
    return of


def _numbered(name: str) -> list:
    """Return a name's key for sorting, the numbers in it as numbers: frame 9 comes before frame 10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]
