"""Which of several models is better, how sure is it, and where do they differ? One pass over the same images."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kseg import __version__
from kseg.data.groups import groups_of
from kseg.data.pipeline.load import open_split
from kseg.evaluation.one_pass import split_pass
from kseg.inference.compatibility import check_classes, warn_of_other_records
from kseg.inference.fitting import fitted
from kseg.inference.label_model import class_count, label_set_of, reads_of
from kseg.inference.loading import as_model
from kseg.inference.predictor import predictor
from kseg.inference.provenance import provenance
from kseg.io.errors import InputError
from kseg.io.files import StrPath
from kseg.io.hash_list import write_hashes
from kseg.metrics.bootstrap import ImageCounts
from kseg.metrics.boundaries import checked_pair
from kseg.metrics.objects import ObjectScores
from kseg.metrics.scores import ScoreCounts
from kseg.reports.compared_models import checked_models
from kseg.reports.comparison_counts import OBJECTS, ComparisonCounts, recomputed, write_counts
from kseg.reports.comparison_table import Comparison
from kseg.reports.page.output_folder import replaced_folder
from kseg.reports.page.pictures import Pictures
from kseg.reports.page.write_page import write_page

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras

    from kseg.inference.label_model import LabelModel


def compare(
    models: Sequence[StrPath] | Mapping[str, keras.Model | LabelModel | StrPath | Sequence[Any]],
    data_dir: StrPath,
    output: StrPath,
    *,
    split: str = "val",
    label_set: str | None = None,
    label_space: str | None = None,
    batch_size: int = 1,
    group_by: str | None = None,
    progress: bool = False,
) -> Comparison:
    """Score models on the same images, protocol "standard", and write a page that shows where they differ.

    Every other model is compared with the first, on the classes in the truth, for each image and for all. A class that
    only one model predicts is left out of the means here, while `kseg.evaluate` counts it as IoU 0. Intervals: 95 % of
    10,000 paired resamples of the groups of images that belong together, and of single images
    (`metrics.bootstrap.paired_bootstrap` says what they mean). Objects are the records' instances where they have them,
    else connected components (`metrics.objects.ObjectScores`). Memory grows with the number of images by `ImageCounts`
    and a row of scores each.

    Args:
        models: two or more paths that `kseg.load_model` takes, or a dict of name -> keras.Model or path. The
            description of one may hold a map to the data's classes (docs/how-to/contestants.md). A list in the dict is
            an ensemble.
        data_dir: a record folder. output: folder for index.html, comparison.json, counts.npz, from which
            `kseg.studies.verify` recomputes all numbers, sha256.txt and pictures, all or none written.
            An earlier page there is replaced, anything else is refused; a link to the folder stays a link.
        group_by: as in `kseg.evaluate`; there must be two groups or more. None: the drives in the names, blocks of 25
            frames if they show one drive, single images if they show none. The rest as in `kseg.evaluate`.
    Returns:
        Comparison
    Raises:
        ValueError: fewer than two models, a model twice, other classes than the data's, an image missing, other things
            in `output`, an `output` that is read or that another process fills. FileNotFoundError: no model, records or
            place for the output. FloatingPointError: scores that are nan or infinite; it names the model and the image.
    """
    models = checked_models(models, data_dir, output)
    with replaced_folder(output) as folder:
        source = open_split(data_dir, split, label_set, label_space)
        loaded = _contestants(models, source, data_dir)
        _check_same_classes(loaded)
        for name, model in loaded.items():
            with _naming(name):
                check_classes(model, source.label_set, data_dir)
        origins = {name: {**provenance(models[name]), "reads": reads_of(model)} for name, model in loaded.items()}
        if group_by is not None:
            _check_groups(source, group_by)
        tally = _Tally(source, len(loaded), folder)
        predictors = [_named_predictor(name, model) for name, model in loaded.items()]
        with source.readable_errors():
            for scene in split_pass(source, predictors, batch_size, progress=progress, title="compare"):
                tally.add(scene)
        counts = tally.counts(group_by)
        found = tally.result(origins, split, counts)
        write_page(folder, "comparison", found.table)
        write_counts(folder, counts)
        write_hashes(folder)
    return found


def _contestants(models, source, data_dir):
    """Return name -> model as it is scored on a split."""
    found = {}
    for name, model in models.items():
        with _naming(name):
            loaded = as_model(model)
            warn_of_other_records(loaded, source.manifest, data_dir, name)
            found[name] = fitted(loaded, source)
    return found


@contextlib.contextmanager
def _naming(name):
    try:
        yield
    except InputError as error:
        raise type(error)(f"{name}: {error}") from error


def _named_predictor(name, model):
    """Return the model's predictor, whose errors say which model it is."""
    predict = predictor(model)

    def named_predict(images, height, width, names):
        with _naming(name):
            return predict(images, height, width, names)

    return named_predict


def _check_same_classes(models):
    shown = {}
    for name, model in models.items():
        known = label_set_of(model)
        classes = tuple(known["classes"]) if known else class_count(model)
        shown[name] = (classes, f"{name} has {class_count(model)} ({known['name'] if known else 'unnamed'})")
    named = {classes for classes, _ in shown.values() if isinstance(classes, tuple)}
    counts = {len(classes) if isinstance(classes, tuple) else classes for classes, _ in shown.values()}
    if len(named) > 1 or len(counts) > 1:
        each = ", ".join(text for _, text in shown.values())
        raise InputError(
            f"Models can only be compared over the same classes, but these differ: {each}. Map the classes "
            "of one to those of the data in its description (docs/how-to/contestants.md), or score each alone by kseg "
            "evaluate."
        )


def _check_groups(source, group_by):
    """Raise InputError if all images of a split are of one group."""
    groups = groups_of(source.split.names, group_by, source.manifest.drive)
    if len(groups.names) < 2:
        raise InputError(
            f"An interval needs two groups of images or more, but all of split {source.split.name} are of one, "
            f"{groups.names[0]}. Take smaller groups, or leave group_by out."
        )


class _Tally:
    """What one pass over a split leaves: counts of each image, objects, pictures."""

    def __init__(self, source, models, folder):
        self.source = source
        self._sizes = []
        self._differ = []
        self._classes = source.label_set.classes
        self._image_counts = ImageCounts()
        self._counts = [ScoreCounts(self._classes) for _ in range(models)]
        self._objects = [ObjectScores(self._classes) for _ in range(models)]
        self._pictures = Pictures(folder, source.label_set.palette, models)

    def add(self, scene):
        """Count an image, and draw it."""
        matrices = []
        for counts, objects, prediction in zip(self._counts, self._objects, scene.predictions, strict=True):
            matrices.append(counts.add(scene.truth, prediction))
            objects.update(scene.truth, prediction, scene.instances)
        self._image_counts.add(matrices)
        checked = [checked_pair(scene.truth, prediction, len(self._classes)) for prediction in scene.predictions]
        truth, _, valid = checked[0]
        predictions = [prediction for _, prediction, _ in checked]
        self._pictures.add(scene.index, scene.image, truth, predictions, valid)
        self._differ.append([np.count_nonzero((one != predictions[0]) & valid) for one in predictions])
        self._sizes.append([truth.shape[1], truth.shape[0]])

    def counts(self, group_by):
        """Return the ComparisonCounts of all images. group_by: what was asked for, or None."""
        found = [objects.counts() for objects in self._objects]
        return ComparisonCounts(
            counts=self._image_counts.array(),
            differ=np.array(self._differ),
            sizes=np.array(self._sizes),
            objects={name: np.stack([one[name] for one in found]) for name in OBJECTS},
            names=self.source.split.names,
            classes=self._classes,
            group_by=group_by or "",
            drive=self.source.manifest.drive,
        )

    def result(self, models, split, counts):
        """Return the Comparison.

        Args:
            models: name -> `inference.provenance` of it, and how it reads images. counts: of `counts`.
        """
        scores = tuple(counts.scores(len(self.source)) for counts in self._counts)
        labels = self.source.label_set
        table = {
            "format": "kseg comparison 3",
            "kseg_version": __version__,
            "title": " against ".join(models),
            "protocol": "standard",
            "data_dir": str(self.source.manifest.data_dir),
            "dataset": self.source.manifest.info.name,
            "split": split,
            "label_set": labels.name,
            "palette": [list(colour) for colour in labels.palette],
            "manifest_sha256": self.source.manifest.digest,
            "models": [{"name": name, **origin} for name, origin in models.items()],
            "out_of_range": scores[0].out_of_range,
            **recomputed(counts, tuple(models)),
        }
        return Comparison(tuple(models), scores, tuple(self._objects), table)
