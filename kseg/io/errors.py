"""Errors that the user can fix. A command shows them as one line; any other error is a defect, with traceback.

Their messages name settings as the reader writes them: `--epochs=3` in a command, `epochs=3` in Python.
"""

import contextlib
import numbers
import re
import sys
import warnings

from kseg.io.pages import with_pages

# What somebody is told to type into a shell: its flags stay flags in Python too.
_SHELL = r"(?:python scripts/|scripts/\w+\.py |pip |kseg \w+ --|\bpredict --)[^\n]*"
_FLAG = re.compile(rf"({_SHELL})|(?<![\w='\"/-])--(?=[a-z]\w)")
_PREPARE = re.compile(r"(?<!or )\bkseg prepare\b(?! --)")
_commands = []  # of the command that runs: what finds the names of its flags that have no dashes


@contextlib.contextmanager
def speaking_flags(names):
    """While it lasts, messages speak to somebody who called a command with flags of these names."""
    plain = "|".join(name for name in names if "_" not in name)
    joined = "|".join(name for name in names if "_" in name)
    bare = re.compile(
        rf"({_SHELL})"
        # train_steps can only be a setting; loss is an English word too, unless it stands before = or must.
        rf"|(?<![\w./'\"`-])(?:(?P<joined>{joined or '(?!)'})(?![\w(/'\"`]|\.\w)|(?P<before>{plain or '(?!)'})(?==))"
        rf"|(?:^|(?<=\. ))(?P<start>{plain or '(?!)'})(?= must | has no effect )"
    )
    _commands.append(bare)
    try:
        yield
    finally:
        _commands.pop()


def as_written(text):
    """Return a text with the settings in it as its reader writes them: --name in a command, name in Python.

    Pages of docs/ are files of this installation, and in Python the function that prepares records is named too.
    """
    text = with_pages(text)
    if not _commands:
        text = _PREPARE.sub("kseg.prepare_dataset or kseg prepare", text)
        return _FLAG.sub(lambda found: found[1] or "", text)
    return _commands[-1].sub(lambda found: found[1] or f"--{found[0]}", text)


class InputError(ValueError):
    """A setting, file or model that cannot be used. The message says what must hold, what was given and what to do."""

    def __str__(self):
        return as_written(super().__str__())


class MissingFileError(FileNotFoundError, InputError):
    """A file or folder that is not there."""

    def __str__(self):
        return as_written(super().__str__())


def error_in(where, error: InputError) -> InputError:
    """Return an error that also says where: of a missing file, or an InputError."""
    kind = MissingFileError if isinstance(error, MissingFileError) else InputError
    return kind(f"{where}: {error}")


class FileAccessError(OSError, InputError):  # OSError first: it is what makes errno and text of the arguments
    """A file that could not be read or written: a full disk, a missing permission."""

    def __str__(self):
        return as_written(super().__str__())


class NotFiniteError(InputError, FloatingPointError):
    """A loss, gradient, weight or score that is nan or infinite."""


class DamagedInputError(InputError):
    """Some of many inputs cannot be read; all others were processed."""


class LostProcessError(ConnectionError, ChildProcessError, InputError):
    """Another process that shares the work is gone."""

    def __str__(self):
        return as_written(super().__str__())


def check_divides(height, width, multiple):
    """Raise ValueError if a model cannot take images of this size; None is an unknown size."""
    if not (height or 0) % multiple and not (width or 0) % multiple:
        return
    fit = "x".join(str(max(round(size / multiple), 1) * multiple) if size else "?" for size in (height, width))
    raise InputError(
        f"Height and width must be multiples of {multiple}, got {height or '?'}x{width or '?'}. Choose a size "
        f"that fits, such as {fit}."
    )


def check_whole(name, value, least):
    """Return a whole number as an int; InputError unless it is one (no bool, no 2.0) of at least `least`.

    NumPy's whole numbers are taken.
    """
    if not is_whole(value) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return int(value)


def plain(value):
    """Return NumPy's scalars, alone or in lists, tuples and dicts, as Python's numbers; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else value
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def is_whole(value):
    """Whether a value is a whole number, of Python's or NumPy's; True and 2.0 are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def warn_user(message):
    """Warn at the line outside kseg that led here: what somebody wrote, not what it called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "kseg":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
