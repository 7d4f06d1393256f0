"""The folder of a page: what kseg wrote there is replaced when the new page is complete; nothing else is touched."""

import contextlib
import pathlib
import re

from kseg.io.files import replacing_content

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
    path = pathlib.Path(path).resolve()
    numbers = numbers_file(kind)
    own = re.compile(rf"{INDEX}|{re.escape(numbers)}|{_COUNTED}|{_PARTS[kind]}({_FOLDERS}({_PICTURE})?)?")
    with replacing_content(path, own, numbers, INDEX) as folder:
        yield folder
