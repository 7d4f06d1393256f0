"""The folder of a page: filled beside its place under another name, then put there; foreign files are never removed."""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile

from kseg.errors import InputError, MissingFileError

INDEX, NUMBERS = "index.html", "comparison.json"
_OWN = re.compile(r"index\.html|comparison\.json|(photos|truth|(model|right)\d+|thumbnails)/\d{5,}(\.\d+)?\.(jpg|png)")


@contextlib.contextmanager
def replaced_folder(path):
    """Give an empty folder that takes the place of `path` when the block ends well, and vanishes when it does not.

    Args:
        path: a folder in one that exists: none yet, an empty one, or an earlier page with nothing else in it.
    Raises:
        FileNotFoundError: there is no folder to put it in. ValueError: something else is there; before the block.
    """
    path = pathlib.Path(path).resolve()
    if not path.parent.is_dir():
        raise MissingFileError(f"{path} must lie in a folder that exists; there is no {path.parent}.")
    check_own(path)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".unfinished", dir=path.parent))
    try:
        os.chmod(folder, 0o777 & ~_umask())  # mkdtemp's is for its user alone
        yield folder
        check_own(path)  # much may have happened meanwhile
        before = folder.with_suffix(".before")
        if path.exists():
            os.replace(path, before)
        try:
            os.replace(folder, path)
        except OSError:
            if before.exists():
                os.replace(before, path)
            raise
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_own(path):
    """Raise ValueError if there is anything at `path` but an earlier page, whole or in part."""
    if not path.exists():
        return
    advice = "Choose another --output folder, or empty this one."
    if not path.is_dir():
        raise InputError(f"{path} must be a folder for the page, but is a file. {advice}")
    names = (file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir())
    foreign = next((name for name in names if not _OWN.fullmatch(name)), None)
    if foreign:
        raise InputError(f"{path} holds {foreign}, which is no part of a comparison's page. {advice}")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
