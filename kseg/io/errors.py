"""Errors that the user can fix. A command shows them as one line; any other error is a defect, with traceback."""

import numbers


class InputError(ValueError):
    """A setting, file or model that cannot be used. The message says what must hold, what was given and what to do."""


class MissingFileError(FileNotFoundError, InputError):
    """A file or folder that is not there."""


class FileAccessError(OSError, InputError):  # OSError first: it is what makes errno and text of the arguments
    """A file that could not be read or written: a full disk, a missing permission."""


class NotFiniteError(InputError, FloatingPointError):
    """A loss, gradient, weight or score that is nan or infinite."""


class DamagedInputError(InputError):
    """Some of many inputs are damaged; all others were processed."""


class LostProcessError(ConnectionError, ChildProcessError, InputError):
    """Another process that shares the work is gone."""


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
