"""Everything that one pass over a split can tell beyond the scores: confusions, boundaries, objects."""

import pathlib
from typing import NamedTuple

import numpy as np

from kseg.data.pipeline.examples import read_instances
from kseg.data.pipeline.load import open_split
from kseg.data.records.manifest import record_files
from kseg.inference.compatibility import check_classes, warn_of_other_records
from kseg.inference.finite import image_names
from kseg.inference.loading import as_model, model_files
from kseg.inference.predict import labeller
from kseg.io.files import refuse_inputs
from kseg.io.progress import progress_bar
from kseg.metrics.boundaries import BoundaryScores
from kseg.metrics.confusion import confusion_matrix
from kseg.metrics.objects import ObjectScores
from kseg.metrics.scores import ImageMeans, Scores, check_complete
from kseg.visualization.confusion_picture import draw_confusion_matrix, write_confusion_csv

FILES = ("confusion.csv", "confusion.png", "objects.json", "boundaries.json")


class Report(NamedTuple):
    """What `write_report` found; `str()` is its tables of objects and boundaries. `scores`: as `kseg.evaluate`'s."""

    scores: Scores
    objects: ObjectScores
    boundaries: BoundaryScores

    def __str__(self):
        return f"{self.objects}\n\n{self.boundaries}"


def write_report(
    model, data_dir, folder, *, split="val", label_set=None, label_space=None, batch_size=1, progress=False
):
    """Run a model once over a split, at the labels' own resolution, and write what it confuses, misses and blurs.

    Writes confusion.csv, confusion.png, objects.json (metrics.objects.ObjectScores, with the records' instance maps
    where they have them) and boundaries.json (metrics.boundaries.BoundaryScores) into a folder.

    Args:
        model: keras.Model that gives logits, or a path that `kseg.load_model` takes. data_dir: a record folder.
        folder: made if missing. The rest as in `kseg.evaluate`; protocol "standard".
    Returns:
        Report
    Raises:
        ValueError: unknown split or label set, the model's classes are not the data's, an image missing, an instance
            map of some records only, a file of the report that is one of the model's or records'. Nothing is written
            then, but the folder may have been made.
        FloatingPointError: scores that are nan or infinite; it names the image. Nothing is written then either.
    """
    paths = [pathlib.Path(folder, name) for name in FILES]
    refuse_inputs(paths, [*model_files(model), *record_files(data_dir)])
    model, source = as_model(model), open_split(data_dir, split, label_set, label_space)
    check_classes(model, source.label_set, data_dir)
    warn_of_other_records(model, source.manifest, data_dir)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    classes, matrix, out_of_range, images = source.label_set.classes, 0, 0, 0
    means, boundaries, objects = ImageMeans(), BoundaryScores(classes), ObjectScores(classes)
    with source.readable_errors():
        for truth, prediction in _pairs(labeller(model), source, batch_size, progress):
            counts, strange = confusion_matrix(truth, prediction, len(classes))
            means.update(counts)
            matrix, out_of_range = matrix + counts, out_of_range + strange
            boundaries.update(truth, prediction)
            objects.update(truth, prediction, read_instances(source, images))
            images += 1
    check_complete(images, len(source))
    scores = Scores.from_confusion_matrix(matrix, classes, images, out_of_range, len(source), means.result())
    write_confusion_csv(scores, paths[0])
    draw_confusion_matrix(scores, paths[1])
    objects.to_json(paths[2])
    boundaries.to_json(paths[3])
    return Report(scores, objects, boundaries)


def _pairs(label, source, batch_size, progress):
    """Give (truth, prediction) of every image in file-name order, each (H, W)."""
    first = 0
    with progress_bar("report", len(source), shown=progress) as bar:
        for images, truths in source.batches(batch_size):
            images, truths = np.asarray(images), np.asarray(truths)
            names = image_names(source.split.names, first, len(images))
            yield from zip(truths, label(images, *truths.shape[1:], names), strict=True)
            first += len(images)
            bar.update(len(images))
