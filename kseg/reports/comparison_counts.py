"""The counts of a comparison, beside its page: every number and interval of comparison.json is computed from them."""

import dataclasses
import json
import math
import pathlib

import numpy as np

from kseg.data.groups import groups_of, shown_groups
from kseg.io.errors import InputError
from kseg.io.files import reading
from kseg.io.zips import DAMAGED_ARRAYS
from kseg.metrics.bootstrap import LEVEL, RESAMPLES, paired_bootstrap, scores_of_counts
from kseg.metrics.objects import ObjectScores
from kseg.reports.comparison_table import difference_rows, verdict
from kseg.reports.page.image_rows import scored_rows

COUNTS = "counts.npz"
OBJECTS = ("objects", "swallowed", "distance")


@dataclasses.dataclass(frozen=True)
class ComparisonCounts:
    """What one pass over n images with M models counted; C classes.

    counts: int64 (n, 1 + 2 M, C) of `kseg.metrics.bootstrap.ImageCounts`. differ: int64 (n, M), valid pixels at which a
    model's prediction is not the first's. sizes: int64 (n, 2), width and height. objects: {name: int64 (M, ...)}, a row
    a model of `ObjectScores.counts`. names: of the images. classes: names. group_by: what was asked for, "" for
    what the names show. drive: the dataset's rule for drives.
    """

    counts: np.ndarray
    differ: np.ndarray
    sizes: np.ndarray
    objects: dict[str, np.ndarray]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    group_by: str
    drive: str


def write_counts(folder, found):
    """Write ComparisonCounts into the folder of a page."""
    with open(pathlib.Path(folder) / COUNTS, "wb") as file:  # the folder is renamed when it is whole
        np.savez_compressed(
            file,
            counts=found.counts,
            differ=found.differ,
            sizes=found.sizes,
            names=np.array(found.names, str),
            classes=np.array(found.classes, str),
            drawn=np.array(json.dumps([found.group_by, found.drive])),
            **found.objects,
        )


def read_counts(folder):
    """Return the ComparisonCounts of a page's folder; InputError if they are damaged."""
    path = pathlib.Path(folder) / COUNTS
    try:
        with reading(path), np.load(path, allow_pickle=False) as file:
            group_by, drive = json.loads(str(file["drawn"]))
            return ComparisonCounts(
                counts=file["counts"],
                differ=file["differ"],
                sizes=file["sizes"],
                objects={name: file[name] for name in OBJECTS},
                names=tuple(file["names"].tolist()),
                classes=tuple(file["classes"].tolist()),
                group_by=group_by,
                drive=drive,
            )
    except InputError:
        raise
    except DAMAGED_ARRAYS as error:
        raise InputError(f"{COUNTS} is damaged: {str(error).rstrip('.')}.") from error


def recomputed(found, models):
    """Return the parts of comparison.json that counts give, by their keys.

    Args:
        found: ComparisonCounts. models: names of the models.
    Raises:
        InputError: counts that cannot be.
    """
    counts = found.counts
    pixels = counts[:, 0].sum(axis=0)
    if found.group_by:
        groups = groups_of(found.names, found.group_by, found.drive)
    else:
        groups = shown_groups(found.names, found.drive)
    by_image = paired_bootstrap(counts)
    by_group = None if groups.by == "image" else paired_bootstrap(counts, groups.of)
    rows = difference_rows(scores_of_counts(counts.sum(axis=0)), by_image, by_group, pixels)
    return {
        "classes": list(found.classes),
        "scored_classes": [name for name, count in zip(found.classes, pixels, strict=True) if count],
        "bootstrap": {
            "resamples": RESAMPLES,
            "level": LEVEL,
            "group_by": groups.by,
            "unit": groups.unit,
            "groups": [] if by_group is None else list(groups.names),
            "meaning": groups.meaning(),
        },
        "verdicts": _verdicts(models, rows["scores"][0], groups),
        **rows,
        "objects": [_objects(found, model) for model in range(len(found.objects["objects"]))],
        "images": _rows(found, groups),
    }


def _objects(found, model):
    arrays = {name: array[model] for name, array in found.objects.items()}
    return ObjectScores.of_counts(found.classes, len(found.names), arrays).result()


def _rows(found, groups):
    valid = found.counts[:, 0].sum(axis=1)
    rows = []
    for i, name in enumerate(found.names):
        differ = [n / valid[i] if valid[i] else math.nan for n in found.differ[i, 1:].tolist()]
        rows.append(
            {
                "name": name,
                "size": found.sizes[i].tolist(),
                "classes": np.flatnonzero(found.counts[i, 0]).tolist(),
                "disagreement": [None, *differ],
                "group": groups.of[i],
            }
        )
    return scored_rows(rows, found.counts)


def _verdicts(names, row, groups):
    """Return the verdict of each model against the first by a row of scores; None for the first itself."""
    found = [None]
    for model, difference in enumerate(row["differences"][1:], start=1):
        pair = (0, model)
        ends = difference["by_group"] or difference["by_image"]
        values = [row["values"][m] for m in pair]
        said = verdict([names[m] for m in pair], values, ends, difference["above"], groups.unit, groups.alone)
        if said["winner"] is not None:
            said["winner"] = pair[said["winner"]]
        found.append(said)
    return found
