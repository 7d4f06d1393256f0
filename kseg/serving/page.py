"""The page of a web export, which a server may show beside its model."""

import pathlib

from kseg.inference.outside.carried_files import carried_table
from kseg.inference.outside.file_kinds import WEB
from kseg.io.errors import InputError

# The files of `kseg export --format=web`, each at an address of its own: no address is looked up in a folder.
PAGE_FILES = {"/": "index.html", "/model.js": "model.js", "/runtime.js": "runtime.js"}


def check_page_classes(folder, label_set):
    """Raise InputError where the page in a folder (None: there is none) labels other classes than a model.

    label_set: of the model, with "classes"; empty: it does not know them.
    """
    if folder is None or not label_set.get("classes"):
        return
    known = carried_table(pathlib.Path(folder), WEB)
    if known and known["classes"] != list(label_set["classes"]):
        raise InputError(
            f"page must be of a model of the same classes, but {folder} has {', '.join(known['classes'])}, and the "
            f"model {', '.join(label_set['classes'])}. Export the page from this model."
        )


def check_page(folder):
    """Raise InputError unless a folder, or None, holds a web export."""
    if folder is not None and not all(pathlib.Path(folder, name).is_file() for name in PAGE_FILES.values()):
        raise InputError(f"page must be a folder that kseg export --format=web wrote, got {folder}.")
