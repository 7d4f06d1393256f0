"""The pages of docs/ that messages name, where this installation has them."""

import pathlib
import re

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_PAGE = re.compile(r"(?<![\w/.-])docs/[\w/-]+\.md\b")  # not within a path or an address


def with_pages(text):
    """Return a text in which the pages that it names (docs/how-to/export.md) are files of this installation.

    In a clone, where docs/ is beside the package, it stays as it is.
    """

    def placed(page):
        path = _PACKAGE / page[0]
        return str(path) if path.is_file() else page[0]

    return _PAGE.sub(placed, text)
