"""Where a command may write: never onto an input, and only where it can."""

import contextlib
import functools
import os
import pathlib

from kseg.io.errors import FileAccessError, InputError
from kseg.io.files import is_url


def refuse_inputs(outputs, inputs):
    """Refuse outputs that would overwrite an input or cannot be made. Call this before anything is written.

    No output may be an input, lie in an input folder, or be a folder that holds an input. No two outputs may be the
    same file. The folder of an output need not exist, but it must be possible to make it. The check sees through
    symbolic and hard links, "..", and names that differ in case where the file system ignores case.

    Args:
        outputs: files and folders that will be written or replaced; they need not exist.
        inputs: files and folders that are read; URLs are ignored, because outputs are local.
    Raises:
        InputError: names the output, the input, and what to do. FileAccessError: an output's folder cannot be made, or
            nothing can be written there.
    """
    identities = functools.cache(_identities)
    folders = functools.cache(lambda folder: (*identities(folder), *_above(folder, folders)))
    read = {}
    holding = {}
    written = {}
    check_folder = functools.cache(check_writable)
    for path in inputs:
        if not is_url(path):
            read |= dict.fromkeys(_identities(path), path)
            holding |= dict.fromkeys(_above(path, folders), path)
    for path in outputs:
        same = _identities(path)
        for relation, keys, table in (
            ("is the input", same, read),
            ("lies in the input", _above(path, folders), read),
            ("holds the input", same, holding),
            ("is also the output", same, written),
        ):
            other = next((table[key] for key in keys if key in table), None)
            if other is not None:
                what = "Inputs must stay as they are"
                if table is written:
                    what = "Outputs must differ"
                raise InputError(f"{what}, but the output {path} {relation} {other}. Choose another output.")
        written |= dict.fromkeys(same, path)
        check_folder(pathlib.Path(path).absolute().parent)


def _identities(path) -> tuple:
    """Return what two paths of one file have in common: its real path, and where it exists its device and inode."""
    keys = (os.path.normcase(os.path.realpath(path)),)
    with contextlib.suppress(OSError):
        status = os.stat(path)
        if status.st_ino:
            keys += ((status.st_dev, status.st_ino),)
    return keys


def _above(path, folders) -> tuple:
    """Return the identities of all folders above a path, as it is written and as links lead."""
    parents = {os.path.dirname(place) for place in (os.path.abspath(path), os.path.realpath(path))}
    return tuple(key for parent in parents if parent != os.fspath(path) for key in folders(parent))


def check_writable(folder: pathlib.Path, what="output") -> None:
    """Raise FileAccessError unless a folder, absolute, is one that can be written, or can be made.

    Args:
        what: it is, for the advice.
    """
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        found = "a file" if there.exists() else "a link to nothing"
        raise FileAccessError(f"{there} must be a folder, but is {found}. Choose another {what}.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise FileAccessError(f"You may not write in {there}. Choose another {what}.")
    if there != folder:
        _check_takes_folders(there, what)


def _check_takes_folders(there, what):
    """Raise FileAccessError unless a folder can be made in one whose owner may: not in /proc, whose content is made up.

    Only making one shows it. It has another name than the folder that is wanted, which another process may make now.
    """
    tried = there / f".tmp-{os.getpid()}-folder"
    try:
        tried.mkdir()
        tried.rmdir()
    except FileNotFoundError:
        raise FileAccessError(f"No folder can be made in {there}. Choose another {what}.") from None
    except OSError as error:
        raise FileAccessError(f"No folder can be made in {there}: {error.strerror}. Choose another {what}.") from error
