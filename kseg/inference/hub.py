"""Models on the Hugging Face Hub: hf://USER/NAME is a folder of a run or an export that somebody uploaded."""

import os
import pathlib
import re

from kseg.io.errors import InputError
from kseg.io.files import checked_path
from kseg.io.text import error_text

PREFIX = "hf://"
_PLACE = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_UNUSED = ("checkpoints/*", "logs/*")  # of a run; they are its largest files, and no model


def on_hub(path):
    """Whether a path names a model on the Hub."""
    return isinstance(path, str) and path.startswith(PREFIX)


def hub_name(path):
    """USER/NAME of hf://USER/NAME or hf://USER/NAME@REVISION. Raises: InputError for another form."""
    found = _PLACE.fullmatch(path)
    if not found:
        raise InputError(f"A model on the Hub must be hf://USER/NAME or hf://USER/NAME@REVISION, got {path!r}.")
    return found[1]


def local_path(path):
    """Return the path of a model on this machine; one on the Hub is downloaded once, to the Hub's own cache.

    Args:
        path: str or path; hf://USER/NAME, also with @REVISION (a branch, tag or commit), is on the Hub.
    Returns:
        pathlib.Path.
    Raises:
        InputError: no path; huggingface_hub is not installed; the Hub does not give the model.
    """
    if not on_hub(path):
        local = pathlib.Path(checked_path(path, "model"))
        if local.name in ("", ".."):  # "." and "..": the name of their folder is the model's
            return pathlib.Path(os.path.abspath(local))
        return local
    name = hub_name(path)
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(f"{path} needs huggingface_hub: pip install 'kseg[hub]' ({error}).") from error
    revision = _PLACE.fullmatch(path)[2]
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(name, revision=revision, ignore_patterns=list(_UNUSED)))
    except Exception as error:  # its own kinds, those of its HTTP library, and OSError
        raise InputError(
            f"The Hub does not give {path}: {error_text(error)}. Check the name and the network; a private model needs "
            "`hf auth login` first."
        ) from error
