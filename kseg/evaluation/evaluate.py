"""Scoring a model: every image once, at the label's own resolution, into one confusion matrix."""

import collections.abc
import os
import pathlib

import numpy as np

from kseg.data.pipeline.load import open_split
from kseg.evaluation.cityscapes_protocol import evaluate_cityscapes
from kseg.evaluation.fischer2021_protocol import evaluate_seed, stored_label_resize
from kseg.inference.compatibility import check_classes, class_count, warn_of_other_records
from kseg.inference.finite import image_names
from kseg.inference.loading import as_model, label_set_of
from kseg.inference.predict import labeller, read_image
from kseg.io.errors import InputError
from kseg.io.files import checked_path, reading
from kseg.io.images import decode_label
from kseg.io.progress import progress_bar
from kseg.metrics.confusion import confusion_matrix
from kseg.metrics.scores import ImageMeans, Scores, check_complete


def evaluate(
    model,
    data,
    *,
    protocol="standard",
    label_set=None,
    split="val",
    batch_size=1,
    label_space=None,
    progress=False,
    label_resize=None,
    train_mode_statistics=False,
):
    """Score a model on every image of a split, at the label's own resolution.

    The standard protocol: the label set's classes, void ignored, one confusion matrix over all images; a prediction
    outside the classes on a valid pixel is a false negative. The Cityscapes protocol: the benchmark's own class and
    category IoU and iIoU, equal to cityscapesScripts' to the bit; it needs Cityscapes records with instance maps. The
    seed protocol: what the authors of the paper did, at the network's size (`fischer2021_protocol.evaluate_seed`).

    Args:
        model: keras.Model that gives logits, or a path that `kseg.load_model` takes.
        data: a record folder, or an iterable (a tf.data.Dataset too) of (image, label), single (H, W, 3) and (H, W)
            or batched, uint8 RGB and uint8 training ids, 255 = ignore. Image and label, or either, may be the path of a
            file, decoded as `prepare_dataset` does. A label file holds training ids too, as `predict` writes them: a
            model does not carry the table from the dataset's own ids. Make records for labels of those.
        protocol: "standard", "cityscapes" or "seed". label_set: of a record folder; None is its training classes.
        split, batch_size, label_space: of a record folder, as in `kseg.load_dataset`.
        progress: show a bar of images.
        label_resize, train_mode_statistics: of the seed protocol, as in `evaluate_seed`; label_resize None is what a
            run folder was trained with, "nearest" for any other model.
    Returns:
        kseg.metrics.Scores; under "cityscapes" kseg.metrics.cityscapes_scores.CityscapesScores, under "seed"
        kseg.metrics.fischer2021_scores.SeedScores
    Raises:
        ValueError: unknown protocol, split or label set; the model's classes are not the data's; an image missing; what
            is no pair; a file that cannot be read, which it names. Labels outside the classes in an iterable without a
            label set are counted in Scores.out_of_range.
        FloatingPointError: scores that are nan or infinite; it names the image (of an iterable: its number).
    """
    if protocol not in tuple(PROTOCOLS):
        raise InputError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
    options = _seed_options(protocol, model, data, label_resize, train_mode_statistics)
    model = as_model(model)
    known = label_set_of(model)
    if not isinstance(data, (str, os.PathLike)):
        if protocol == "cityscapes":
            raise InputError('Protocol "cityscapes" needs a record folder: pairs lack regular ids and instance maps.')
        if protocol == "seed":
            return evaluate_seed(model, _pairs(data), batch_size, progress, **options)
        classes = known["classes"] if known else [str(i) for i in range(class_count(model))]
        return score_batches(labeller(model), _pairs(data), classes, None, progress)

    source = open_split(data, split, label_set, label_space)
    check_classes(model, source.label_set, data)
    warn_of_other_records(model, source.manifest, data)
    with source.readable_errors():
        return PROTOCOLS[protocol](model, source, batch_size, progress, **options)


def _pairs(data):
    """Give the pairs (image, label) of an iterable, files decoded."""
    if not isinstance(data, collections.abc.Iterable) or isinstance(data, (bytes, bytearray)):
        raise InputError(f"data must be a record folder or an iterable of (image, label), got {data!r}.")
    for pair in data:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            came = f"{len(pair)} things" if isinstance(pair, (tuple, list)) else type(pair).__name__
            raise InputError(f"Data must be pairs (image, label), arrays or paths of files, got {came} for a pair.")
        image, label = pair
        yield (
            read_image(image) if isinstance(image, (str, os.PathLike)) else image,
            _read_label(label) if isinstance(label, (str, os.PathLike)) else label,
        )


def _read_label(path):
    """Return the training ids (H, W) of a label file."""
    path = pathlib.Path(checked_path(path, "label"))
    if path.stem.endswith("_labelIds"):
        raise InputError(
            f"{path} holds Cityscapes' regular ids, as its name says, but a label file here holds training ids. Make "
            "records of the dataset (scripts/prepare_data.py) and score those."
        )
    with reading(path):
        encoded = path.read_bytes()
    return decode_label(encoded, str(path))[0]


def _seed_options(protocol, model, data, label_resize, train_mode_statistics):
    """Return what only `evaluate_seed` takes, or {} for another protocol, which must not be given any of it."""
    if protocol != "seed":
        if label_resize or train_mode_statistics:
            raise InputError(f'label_resize and train_mode_statistics need protocol "seed", got {protocol!r}.')
        return {}
    stored = stored_label_resize(model) if isinstance(data, (str, pathlib.Path)) else "nearest"
    return {"label_resize": label_resize or stored, "train_mode_statistics": train_mode_statistics}


def evaluate_standard(model, source, batch_size=1, progress=False):
    """Score a model on every image of `open_split`'s examples: one confusion matrix of the label set's classes."""
    batches = source.batches(batch_size)
    names = source.split.names
    return score_batches(labeller(model), batches, source.label_set.classes, len(source), progress, names)


PROTOCOLS = {"standard": evaluate_standard, "seed": evaluate_seed, "cityscapes": evaluate_cityscapes}


def score_batches(label, batches, classes, expected=None, progress=False, names=()):
    """Score a labeller (`kseg.inference.predict.labeller`) on an iterable of (image, label), single or batched.

    Args:
        classes: their names. expected: how many images must come, where that is known. progress: show a bar.
        names: of the images, where they have any, for errors.
    Returns:
        kseg.metrics.Scores
    Raises:
        ValueError: a pair that is none, no image at all, or another number than expected.
        FloatingPointError: scores that are nan or infinite.
    """
    matrix, out_of_range, images, means = 0, 0, 0, ImageMeans()
    for image, truth in _bar(batches, expected, progress):
        image, truth = np.asarray(image), np.asarray(truth)
        if image.ndim == 3:
            image, truth = image[None], truth[None]
        if image.ndim != 4 or truth.ndim != 3 or len(image) != len(truth):
            raise InputError(
                f"Data must be pairs of images (B, H, W, 3) and labels (B, H, W), got {image.shape} and {truth.shape}."
            )
        if image.dtype != np.uint8:
            raise InputError(f"Images must be uint8 RGB (models normalise inside), got {image.dtype}.")
        predicted = label(image, *truth.shape[1:], image_names(names, images, len(image)))
        for pair in zip(truth, predicted, strict=True):
            counts, strange = confusion_matrix(*pair, len(classes))
            means.update(counts)
            matrix, out_of_range, images = matrix + counts, out_of_range + strange, images + 1
    check_complete(images, expected)
    return Scores.from_confusion_matrix(matrix, classes, images, out_of_range, expected, means.result())


def _bar(batches, expected, progress):
    with progress_bar("evaluate", expected, shown=progress) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch[1]) if np.ndim(batch[1]) == 3 else 1)
