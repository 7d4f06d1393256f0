"""The images that are scored: found here by every contestant, for this imports the standard library alone."""

import pathlib


def files(folder, kind):
    """Paths of one kind in file-name order: pred, labelIds, instanceIds (PNG) or five (NumPy: truth, prediction)."""
    return sorted(pathlib.Path(folder).glob(f"*_{kind}.*"))
