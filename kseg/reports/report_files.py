"""The files of an evaluation's report, and whether what is in their way is such a file. Nothing here imports Keras."""

import json
import os
import pathlib

from kseg.io.errors import InputError

ALWAYS = ("confusion.csv", "confusion.png", "objects.json", "boundaries.json")
CALIBRATION = ("calibration.json", "reliability.png")  # of models that give probabilities
GROUPS = ("groups.csv",)  # with group_by
FILES = (*ALWAYS, *CALIBRATION, *GROUPS)
_OF_OBJECTS = ("overlap",)  # a key of each objects.json
_OF_SCORES = ("confusion_matrix", "confMatrix", "classes_per_image")  # one is in the file of each protocol


def check_own_scores(path):
    """Raise InputError if a file is in the way of a table of scores that is not such a table itself."""
    if os.path.lexists(path) and not _has_a_key(path, _OF_SCORES):
        raise InputError(f"{path} is not a table of scores that kseg wrote. Choose another output, or move that file.")


def check_own_report(folder):
    """Raise InputError if a folder holds a file that a report would replace, but is not the folder of a report."""
    found = [name for name in FILES if os.path.lexists(os.path.join(folder, name))]
    if found and not _has_a_key(os.path.join(folder, "objects.json"), _OF_OBJECTS):
        raise InputError(
            f"{folder} holds {found[0]}, which is not of an earlier report. Choose another folder, or move that file."
        )


def _has_a_key(path, keys):
    try:
        table = json.loads(pathlib.Path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(table, dict) and not table.keys().isdisjoint(keys)
