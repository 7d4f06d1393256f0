"""What the converters need: packages that may be missing, quiet while they work, and their errors in words."""

import contextlib
import importlib
import os
import sys

from kseg.io.errors import InputError
from kseg.io.text import error_text


def converter_of(package, extra):
    """Return a package of an extra; InputError if it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"This export needs the package {package}, which is not here ({error}). Install it with pip install "
            f"'kseg[{extra}]'."
        ) from error


@contextlib.contextmanager
def converting(kind):
    """A quiet block in which a converter works, nothing of kseg's; whatever it raises becomes an InputError."""
    try:
        with quiet():
            yield
    except Exception as error:
        raise InputError(f"The model cannot be written as {kind}: {error_text(error)}.") from error


@contextlib.contextmanager
def quiet():
    """A block in which what converters print, also from C++, goes nowhere; an exception says what is wrong."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
