"""What the report needs of each run: a small file of counts per run and split, and results.csv made of them."""

import csv
import dataclasses
import io
import json
import pathlib
from typing import Any

import numpy as np

from kseg.io.errors import InputError
from kseg.io.files import reading, replacing, write_atomic
from kseg.io.zips import DAMAGED_ARRAYS

FOLDER = "counts"
RESULTS = "results.csv"
FIXED = "fixed"  # in the place of a seed: the run of a model that is not trained
CURVE = ("images", "loss", "val_mean_iou")  # columns of a learning curve
_OPTIONAL = ("palette", "objects", "swallowed", "size_edges", "overlap", "curve")


@dataclasses.dataclass(frozen=True)
class RunCounts:
    """A run scored on a split. What files of earlier versions lack is None.

    counts: int64 (n, 3, C), pixels of the truth, those predicted rightly, those predicted. names: of the n images.
    classes: names. drive: the dataset's rule for drives (`kseg.data.groups`). row: of results.csv.
    palette: uint8 (C, 3), colours of the classes. objects: int64 (n, 2, C, bins), objects of the truth and those found,
    by class and size. swallowed: int64 (C, C + 1), which class swallowed the missed ones, the last is none. size_edges,
    overlap: as in `kseg.metrics.objects.ObjectScores`. curve: float64 (epochs, 3), the columns of CURVE, nan where an
    epoch has no such number.
    """

    counts: np.ndarray
    names: tuple[str, ...]
    classes: tuple[str, ...]
    drive: str
    row: dict[str, Any]
    palette: np.ndarray | None = None
    objects: np.ndarray | None = None
    swallowed: np.ndarray | None = None
    size_edges: np.ndarray | None = None
    overlap: np.ndarray | None = None
    curve: np.ndarray | None = None


def run_part(seed):
    """Return what a run of a model on records is called: "seed-3", or "fixed"."""
    return FIXED if seed == FIXED else f"seed-{seed}"


def counts_path(output, model, data, seed, split):
    """Return the path of a run's counts in a study's folder."""
    return pathlib.Path(output) / FOLDER / model / data / f"{run_part(seed)}.{split}.npz"


def write_counts(path, found):
    """Write RunCounts to a file that `read_counts` reads back, complete or not at all."""
    optional = {name: getattr(found, name) for name in _OPTIONAL if getattr(found, name) is not None}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            counts=found.counts,
            names=np.array(found.names, str),
            classes=np.array(found.classes, str),
            drive=np.array(found.drive),
            row=np.array(json.dumps(found.row)),
            **optional,
        )


def read_counts(path):
    """Return the RunCounts of a file; InputError for one that is damaged."""
    try:
        with reading(path), np.load(path, allow_pickle=False) as file:
            return RunCounts(
                counts=file["counts"],
                names=tuple(file["names"].tolist()),
                classes=tuple(file["classes"].tolist()),
                drive=str(file["drive"]),
                row=json.loads(str(file["row"])),
                **{name: file[name] for name in _OPTIONAL if name in file},
            )
    except InputError:
        raise
    except DAMAGED_ARRAYS as error:
        raise InputError(
            f"{path} is damaged ({error}). Delete it and start the study again: it is made anew."
        ) from error


def write_results(output, rows):
    """Write results.csv; rows: dicts, those of RunCounts."""
    write_atomic(str(pathlib.Path(output) / RESULTS), results_text(rows))


def results_text(rows):
    """Return the bytes of results.csv."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
