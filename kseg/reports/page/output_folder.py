"""The folder of a page: what kseg wrote there is replaced when the new page is complete; nothing else is touched."""

import contextlib
import pathlib
import re

from kseg.io.errors import MissingFileError
from kseg.io.files import replacing_content

INDEX = "index.html"
NUMBERS = "comparison.json"
_FOLDERS = r"(photos|truth|(model|right)\d+|thumbnails)/"
_PICTURE = r"\d{5,}(\.\d+)?\.(jpg|png)"
_OWN = re.compile(rf"index\.html|comparison\.json|counts\.npz|sha256\.txt|{_FOLDERS}({_PICTURE})?")


@contextlib.contextmanager
def replaced_folder(path):
    """Give an empty folder whose content becomes the page at `path` when the block ends well, and vanishes when not.

    Args:
        path: a folder in one that exists: none yet, an empty one, or an earlier page with nothing else in it.
    Raises:
        FileNotFoundError: there is no folder to put it in. ValueError: something else is there; before the block.
    """
    path = pathlib.Path(path).resolve()
    if not path.parent.is_dir():
        raise MissingFileError(f"{path} must lie in a folder that exists; there is no {path.parent}.")
    with replacing_content(path, _OWN, NUMBERS, INDEX) as folder:
        yield folder
