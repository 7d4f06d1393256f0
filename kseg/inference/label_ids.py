"""Which ids the label maps of a model hold: the dataset's own, or training ids."""

from typing import NamedTuple

import numpy as np

from kseg import __version__
from kseg.data.datasets import WITH_CLASSES, info_of
from kseg.io.errors import InputError

IDS = ("dataset", "train")


class LabelIds(NamedTuple):
    """The ids that label maps of a model hold.

    table: uint8 (256,), training id -> id in the files. mark: what the files say (`label_marks`). facts: dict for
    classes.json beside them, in the form of a folder dataset's classes.json. note: what the user should know, or "".
    """

    table: np.ndarray
    mark: str
    facts: dict
    note: str


def label_ids(model, ids):
    """Return the LabelIds of a model.

    Outputs of a model that are no class become the largest id that no class has, 255 in most datasets; among training
    ids they stay.

    Args:
        model: of `kseg.inference.loading.as_model`. ids: "dataset" for the dataset's own ids, "train" for training ids.
            Where the model cannot tell the dataset's, they are training ids, and the note says so.
    """
    from kseg.inference.label_model import class_count, label_set_of  # here: it imports Keras

    check_ids(ids)
    known = label_set_of(model) or {}
    names = known.get("classes") or [str(i) for i in range(class_count(model) or 0)]
    palette = known.get("palette") or []
    own, dataset, note = _dataset_ids(known) if ids == "dataset" else (None, known.get("dataset"), "")
    table = np.arange(256, dtype=np.uint8)
    mark = "train"
    if own is not None:
        table[:] = max(set(range(256)) - set(own))
        table[: len(own)] = own
        mark = " ".join(map(str, own))
    rows = [{"id": int(table[k]), "name": name} for k, name in enumerate(names)]
    for row, colour in zip(rows, palette, strict=False):
        row["color"] = list(colour)
    facts = {
        "kseg_version": __version__,
        "ids": "train" if own is None else "dataset",
        "dataset": dataset,
        "label_set": known.get("name"),
        "classes": rows,
    }
    return LabelIds(table, mark, facts, note)


def check_ids(ids):
    """Raise InputError for another word than those of `IDS`."""
    if ids not in IDS:
        raise InputError(f"ids must be {' or '.join(IDS)}, got {ids!r}.")


def _dataset_ids(known):
    """Return (the dataset's own id of each class or None, name of the dataset, note) for a model's label set."""
    ids = known.get("ids")  # all of each class
    if ids and all(ids):
        return [min(numbers) for numbers in ids], known.get("dataset"), ""
    for name in WITH_CLASSES:
        label_set = info_of(name).label_sets.get(known.get("name"))
        if label_set is not None and list(label_set.classes) == known.get("classes"):
            note = (
                f"The model does not say which ids its dataset has, but its classes are those of {name}, whose ids are "
                "written. --ids=train writes training ids."
            )
            return [min(numbers) for numbers in label_set.raw_ids()], name, note
    return None, None, "The model does not say which ids its dataset has: training ids, 0, 1, 2, ..., are written."
