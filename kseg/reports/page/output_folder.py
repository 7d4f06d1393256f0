"""The folder of a page: what kseg wrote there is replaced when the new page is complete; nothing else is touched."""

import contextlib
import pathlib
import re

from kseg.io.files import check_own, replacing_content

INDEX = "index.html"
_FOLDERS = r"(photos|truth|(model|right)\d+|thumbnails)/"
_PARTS = {"comparison": "", "study": r"(\d+/)?"}  # a study has pictures for each of its splits
_COUNTED = r"counts\.npz|sha256\.txt"
_PICTURE = r"\d{5,}(\.\d+)?\.(jpg|png)"


def numbers_file(kind):
    """Return the name of the file with the numbers of a page. kind: of `kseg.reports.page.write_page.KINDS`."""
    return f"{kind}.json"


@contextlib.contextmanager
def replaced_folder(path, kind="comparison"):
    """Give an empty folder whose content becomes the page at `path` when the block ends well, and vanishes when not.

    Args:
        kind: of the page, as in `numbers_file`.
        path: a folder: none yet, an empty one, or an earlier page with nothing else in it.
    Raises:
        ValueError: something else is there; before the block. OSError: it cannot be written.
    """
    with replacing_content(pathlib.Path(path).resolve(), _own(kind), numbers_file(kind), INDEX) as folder:
        yield folder


def check_folder(path, kind="comparison"):
    """Raise InputError where `replaced_folder` would refuse a folder for what it holds."""
    check_own(pathlib.Path(path).resolve(), _own(kind), numbers_file(kind))


def _own(kind):
    """Return the pattern of what a page of that kind holds."""
    numbers = re.escape(numbers_file(kind))
    return re.compile(rf"{INDEX}|{numbers}|{_COUNTED}|{_PARTS[kind]}({_FOLDERS}({_PICTURE})?)?")
