"""The page of a web export, which a server may show beside its model."""

import pathlib

from kseg.io.errors import InputError

# The files of `kseg export --format=web`, each at an address of its own: no address is looked up in a folder.
PAGE_FILES = {"/": "index.html", "/model.js": "model.js", "/runtime.js": "runtime.js"}


def check_page(folder):
    """Raise InputError unless a folder, or None, holds a web export."""
    if folder is not None and not all(pathlib.Path(folder, name).is_file() for name in PAGE_FILES.values()):
        raise InputError(f"page must be a folder that kseg export --format=web wrote, got {folder}.")
