"""A record folder before anyone trains on it: its classes, what is wrong with it, and how it looks augmented."""

import dataclasses
import os
from typing import NamedTuple

import numpy as np

from kseg.data.augmentation.apply_numpy import apply_row
from kseg.data.augmentation.plan import epoch_plan
from kseg.data.checks.record_faults import SplitFindings, check_records
from kseg.data.class_weights import class_weights
from kseg.data.labels import IGNORE_LABEL, INVALID_LABEL, LabelSet
from kseg.data.pipeline.examples import Examples
from kseg.data.records.manifest import load_manifest, record_files
from kseg.data.sampling import evenly_spread
from kseg.io.errors import InputError
from kseg.io.outputs import refuse_inputs
from kseg.settings import Augmentation, Settings
from kseg.visualization.label_maps import drawn_by_kseg, gallery

_WEIGHTS = ("median_frequency", "inverse_sqrt_frequency")  # of the setting class_weights
_SAMPLES = 6  # rows of the sheet
_WIDTH = 400  # of its pictures, in pixels
_HEADS = ("image", "label", "augmented", "augmented label")


class DatasetReport(NamedTuple):
    """What `check_dataset` found; `str()` is the table of classes and the warnings.

    findings: split -> record_faults.SplitFindings. weights: name -> float32 (C,), for the loss. problems: faults,
    warnings: what may surprise, a line each. sheet: path of the picture, or None.
    """

    label_set: LabelSet
    findings: dict[str, SplitFindings]
    weights: dict[str, np.ndarray]
    problems: list[str]
    warnings: list[str]
    sheet: str | None

    def __str__(self):
        names = [*self.label_set.classes, "void", "ids that the dataset does not have"]
        width = max(map(len, names))
        splits = "".join(f"{split:>9} {'images':>8}" for split in self.findings)
        lines = [f"{'':{width}}{splits}{''.join(f'{name:>{len(name) + 2}}' for name in self.weights)}"]
        for row, training_id in zip(names, (*range(len(names) - 2), IGNORE_LABEL, INVALID_LABEL), strict=True):
            cells = [self._cell(found, training_id) for found in self.findings.values()]
            weights = [f"{w[training_id]:>{len(n) + 2}.3f}" for n, w in self.weights.items() if training_id < len(w)]
            lines.append(f"{row:{width}}{''.join(cells)}{''.join(weights)}")
        if self.weights:
            flags = " or ".join(f"--class_weights={name}" for name in self.weights)
            lines.append(f"Training weights the classes so with {flags}.")
        return "\n".join([*lines, *(f"WARNING: {warning}" for warning in self.warnings)])

    def _cell(self, found, training_id):
        share = found.pixels[self.label_set.table == training_id].sum() / max(1, found.pixels.sum())
        return f"{share:>9.3%} {found.images[training_id]:>8}"


def check_dataset(data_dir, sheet=None, *, label_space=None, workers=None, progress=False):
    """Read a whole record folder and say what is wrong with it; draw what training would see.

    Args:
        data_dir: record folder. sheet: path of a PNG to draw, samples of the training split before and after
            augmentation by the default settings; None draws none.
        label_space: of records without dataset.json, as in `kseg.load_dataset`.
        workers, progress: as in `kseg.data.checks.record_faults.check_records`.
    Returns:
        DatasetReport
    Raises:
        FileNotFoundError, ValueError: no record folder, a manifest or shards that cannot be read at all, or a sheet
            that would be one of these files or would replace a file that kseg did not draw.
    """
    refuse_inputs(filter(None, [sheet]), record_files(data_dir))
    if sheet and os.path.splitext(sheet)[1].lower() != ".png":
        raise InputError(f"The picture of a check is a PNG: its name must end in .png, got {sheet}.")
    if sheet and os.path.lexists(sheet) and not drawn_by_kseg(sheet):
        raise InputError(f"{sheet} is no picture that this kseg drew. Choose another place for the sheet, or move it.")
    manifest = load_manifest(data_dir, label_space=label_space)
    findings, problems, warnings = check_records(manifest, workers, progress)
    label_set = manifest.info.label_set()
    name = next(iter(findings))
    if "train" in findings:
        name = "train"
    counts = np.bincount(label_set.table, weights=findings[name].pixels, minlength=256)[: label_set.num_classes]
    weights = {}
    if counts.any():
        weights = {how: class_weights(how, counts.astype(np.int64), len(counts)) for how in _WEIGHTS}
    else:
        problems.append(f"{name}: no pixel belongs to a class, so there is nothing to learn.")
    readable = set(findings[name].names)
    drawn = None
    if sheet and readable:
        draw_samples(Examples(data_dir, name, label_space=label_space), sheet, readable)
        drawn = str(sheet)
    return DatasetReport(label_set, findings, weights, problems, warnings, drawn)


def draw_samples(examples, path, names=None):
    """Draw samples of a split, evenly spread: image, label, and both as one row of the epoch plan changes them.

    Args:
        examples: data.pipeline.examples.Examples. path: of the picture. names: the records to choose from, None all.
    """
    indices = [i for i, name in enumerate(examples.split.names) if names is None or name in names]
    chosen = [indices[i] for i in evenly_spread(len(indices), _SAMPLES)]
    ranges = {field.name: getattr(Settings, field.name) for field in dataclasses.fields(Augmentation)}
    plan = epoch_plan(len(chosen), 1, seed=0, epoch=0, augmentation=Augmentation(**ranges))[:, 0]
    rows = []
    for index, row in zip(chosen, plan, strict=True):
        image, label = examples[index]
        shrunk = min(1, _WIDTH / image.shape[1])
        size = [max(1, round(side * shrunk)) for side in label.shape]
        rows.append((image, label, *apply_row(image, label, row, *size)))
    gallery(rows, _HEADS, examples.label_set.classes, examples.label_set.palette, path, width=_WIDTH)
