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


class LostProcessError(ConnectionError, ChildProcessError, InputError):
    """Another process that shares the work is gone."""


def check_whole(name, value, least):
    """Raise InputError unless a value is a whole number (no bool, no 2.0) of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}.")
