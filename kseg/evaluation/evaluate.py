"""`kseg.evaluate`: open the data, run the protocol."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import os
import pathlib
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from PIL.Image import Image as PillowImage

from kseg.data.labels import IGNORE_LABEL
from kseg.data.records_asked import check_asked
from kseg.evaluation import PROTOCOLS
from kseg.inference.label_marks import mark_of, to_training_ids
from kseg.inference.looks import Looks
from kseg.inference.model_checks import check_fit, check_scales
from kseg.inference.model_paths import described_models
from kseg.inference.read_image import check_image, read_image
from kseg.io.errors import InputError, MissingFileError, warn_user
from kseg.io.files import StrPath, checked_path, reading
from kseg.io.images import decode_label

if TYPE_CHECKING:
    import keras

    from kseg.inference.label_model import LabelModel
    from kseg.metrics.cityscapes_scores import CityscapesScores
    from kseg.metrics.fischer2021_scores import Fischer2021Scores
    from kseg.metrics.scores import Scores

    Model = keras.Model | LabelModel | StrPath | collections.abc.Sequence[Any]  # of models
    Data = StrPath | collections.abc.Iterable[Any]  # of pairs (image, label)


@overload
def evaluate(
    model: Model,
    data: Data,
    *,
    protocol: Literal["standard"] = "standard",
    label_set: str | None = None,
    split: str = "val",
    batch_size: int = 1,
    label_space: str | None = None,
    progress: bool = False,
    group_by: str | None = None,
    label_resize: str | None = None,
    train_mode_statistics: bool = False,
    class_map: dict[str, Any] | StrPath | None = None,
    tile: int | None = None,
    scales: collections.abc.Sequence[float] = (1.0,),
    flip: bool = False,
) -> Scores: ...
@overload
def evaluate(model: Model, data: Data, *, protocol: Literal["cityscapes"], **options: Any) -> CityscapesScores: ...
@overload
def evaluate(model: Model, data: Data, *, protocol: Literal["fischer2021"], **options: Any) -> Fischer2021Scores: ...
@overload
def evaluate(
    model: Model, data: Data, *, protocol: str, **options: Any
) -> Scores | CityscapesScores | Fischer2021Scores: ...
def evaluate(
    model: Model,
    data: Data,
    *,
    protocol: str = "standard",
    label_set: str | None = None,
    split: str = "val",
    batch_size: int = 1,
    label_space: str | None = None,
    progress: bool = False,
    group_by: str | None = None,
    label_resize: str | None = None,
    train_mode_statistics: bool = False,
    class_map: dict[str, Any] | StrPath | None = None,
    tile: int | None = None,
    scales: collections.abc.Sequence[float] = (1.0,),
    flip: bool = False,
) -> Scores | CityscapesScores | Fischer2021Scores:
    """Score a model on every image of a split.

    Protocol "standard": at the label's own resolution, the label set's classes, void ignored, one confusion matrix over
    all images; a prediction outside the classes on a valid pixel is a false negative. "cityscapes": the benchmark's own
    class and category IoU and iIoU, equal to cityscapesScripts' to the bit; it needs Cityscapes records with instance
    maps. "fischer2021": as the authors of the paper do, at the network's size
    (`fischer2021_protocol.evaluate_fischer2021`).

    Args:
        model: keras.Model that gives logits, or a path that `kseg.load_model` takes: also of a model of another format
            or a folder of label maps (docs/how-to/contestants.md); or a list of those, the mean of whose probabilities
            is scored.
        data: a record folder, or an iterable (a tf.data.Dataset too) of (image, label), single (H, W, 3) and (H, W)
            or batched, uint8 RGB and uint8 training ids, 255 = ignore. Image and label, or either, may be the path of a
            file, decoded as `prepare_dataset` does. A label file holds training ids too, or says itself which ids
            it holds, as those that `predict` wrote. Make records for labels of a dataset's own ids.
        protocol: of `kseg.evaluation.PROTOCOLS`. label_set: of a record folder; None is its training classes.
        split, batch_size, label_space: of a record folder, as in `kseg.load_dataset`; refused with an iterable.
        progress: show a bar of images.
        group_by: of a record folder under protocol "standard": score each group of images too. "drive": the drive that
            the dataset's names tell (Cityscapes: the city). "block:25": blocks of 25 consecutive frames of a drive. Any
            other text: a regular expression, found in the name, whose first group is the image's group.
        label_resize, train_mode_statistics: of protocol "fischer2021", as in `evaluate_fischer2021`; label_resize None
            is what a run folder was trained with, "nearest" for any other model.
        class_map: of a record folder: which of the data's classes each class of the model is, a dict of names or the
            path of a .toml or .json file; None: its description may have one, else the classes must be the data's.
        tile, scales, flip: how often, and how, the model looks at each image: `kseg.inference.looks.Looks`. Not of
            protocol "fischer2021".
    Returns:
        kseg.metrics.Scores; under "cityscapes" kseg.metrics.cityscapes_scores.CityscapesScores, under "fischer2021"
        kseg.metrics.fischer2021_scores.Fischer2021Scores
    Raises:
        ValueError: unknown protocol, split or label set; a name that does not show its group; the model's classes are
            not the data's; an image missing; something that is not a pair; a file that cannot be read, or a label file
            with other ids than the model's training ids, which it names. Such ids in arrays are counted in
            Scores.out_of_range, and a UserWarning says so.
        FloatingPointError: scores that are nan or infinite; it names the image (of an iterable: its number).
    """
    options = {"label_resize": label_resize, "train_mode_statistics": train_mode_statistics}
    options = {name: value for name, value in options.items() if value}
    if group_by is not None:
        options["group_by"] = group_by
    chosen, options = _chosen(protocol, options)
    of_records = isinstance(data, (str, os.PathLike))
    if not of_records:
        _refuse_of_records(
            label_set=label_set,
            split=split,
            batch_size=batch_size,
            label_space=label_space,
            class_map=class_map,
        )
    if not of_records and not chosen.takes_pairs:
        raise InputError(f'Protocol "{protocol}" needs a record folder: pairs lack regular ids and instance maps.')
    looks = Looks(tile, scales, flip)
    if protocol == "fischer2021" and not looks.single:
        raise InputError('tile, scales and flip are not of protocol "fischer2021", which looks as its authors do.')
    described = described_models(model)
    if of_records:
        check_fit(described, check_asked(data, split, label_set, label_space, group_by), data, class_map)
    else:
        _check_pairs(data)
    check_scales(described, looks)
    from kseg.evaluation.fischer2021_protocol import stored_label_resize  # here: these import Keras
    from kseg.inference.fitting import check_own_classes
    from kseg.inference.label_model import class_names
    from kseg.inference.loading import as_model

    if of_records and "label_resize" in chosen.options:
        options.setdefault("label_resize", stored_label_resize(model))
    model = as_model(model, looks)
    if not of_records:
        check_own_classes(model)
        pairs = _pairs(data, len(class_names(model)))
        scores = chosen.score(model, pairs, progress=progress, **options)
        if scores.out_of_range:
            warn_user(
                f"{scores.out_of_range} pixels have a label that is neither a training id of the model nor "
                f"{IGNORE_LABEL}: they are in no score. If the labels hold a dataset's own ids, make records of it."
            )
        return with_reads(scores, model)
    model, source = open_for(model, data, split, label_set, label_space, class_map)
    with source.readable_errors():
        scores = chosen.score(model, source, batch_size=batch_size, progress=progress, **options)
    return with_reads(scores, model)


def with_reads(scores, model):
    """Return scores that say what computed them; those of protocols whose files are others' stay as they are."""
    if not hasattr(scores, "reads"):
        return scores
    from kseg.inference.label_model import reads_of

    return dataclasses.replace(scores, reads=reads_of(model))


def _chosen(protocol, options):
    """Return the Protocol and its options; InputError for another one, or an option of another one."""
    if protocol not in tuple(PROTOCOLS):
        raise InputError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
    chosen = PROTOCOLS[protocol]
    for name in options:
        if name not in chosen.options:
            takers = [taker for taker, entry in PROTOCOLS.items() if name in entry.options]
            raise InputError(f'{name} needs protocol "{" or ".join(takers)}", got {protocol!r}.')
    return chosen, options


def _refuse_of_records(**options):
    """Refuse what says something about a record folder where the data is none."""
    for name, value in options.items():
        default = inspect.signature(evaluate).parameters[name].default
        if value is not default and value != default:
            raise InputError(
                f"{name} is of a record folder, got {name}={value!r} with pairs (image, label), which are scored as "
                "they come, single or batched. Leave it out."
            )


def open_for(model, data_dir, split="val", label_set=None, label_space=None, class_map=None):
    """Open a split that a model is to be scored on; a warning says if it was trained on other records.

    Args:
        model: of `kseg.inference.loading.as_model`. The rest as in `kseg.evaluate`.
    Returns:
        (model, source): the model as it is scored, `kseg.inference.fitting.fitted`; of `open_split`.
    Raises:
        ValueError: unknown split or label set, or the model's classes are not the data's.
    """
    from kseg.data.pipeline.load import open_split  # here: these import Keras
    from kseg.inference.compatibility import check_classes, warn_of_other_records
    from kseg.inference.fitting import fitted

    source = open_split(data_dir, split, label_set, label_space)
    warn_of_other_records(model, source.manifest, data_dir)
    model = fitted(model, source, class_map)
    check_classes(model, source.label_set, data_dir)
    return model, source


def _check_pairs(data):
    """Refuse what is no iterable of pairs (image, label); of a list all that can be refused without reading a file."""
    if not isinstance(data, collections.abc.Iterable) or isinstance(data, (bytes, bytearray)):
        raise InputError(f"data must be a record folder or an iterable of (image, label), got {data!r}.")
    if isinstance(data, (list, tuple)):
        if not data:
            raise InputError("There must be at least one image to score, got 0.")
        for number, pair in enumerate(data):
            image, label = _checked_pair(number, pair)
            if isinstance(image, (str, os.PathLike)):
                check_image(image)
            if isinstance(label, (str, os.PathLike)) and not os.path.exists(label):
                raise MissingFileError(f"There is no {label}.")


def _checked_pair(number, pair):
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        given = f"{len(pair)} things" if isinstance(pair, (tuple, list)) else type(pair).__name__
        raise InputError(
            f"Data must be pairs (image, label), arrays or paths of files, got {given} for image {number} (counted "
            "from 0)."
        )
    return pair


def _pairs(data, count):
    """Give the pairs (image, label) of an iterable, files decoded. count: of the model's classes."""
    if hasattr(data, "cardinality") and int(data.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise InputError("data must end, but this dataset repeats for ever. Leave out its repeat(), or take(n) of it.")
    for number, pair in enumerate(data):
        image, label = _checked_pair(number, pair)
        if isinstance(image, (str, os.PathLike, PillowImage)):
            image = read_image(image, f"image {number} (counted from 0)")
        if isinstance(label, (str, os.PathLike)):
            label = _read_label(label, count)
        yield image, label


def _read_label(path, count):
    """Return the training ids (H, W) of a label file; InputError for others than 0 to count - 1."""
    path = pathlib.Path(checked_path(path, "label"))
    if path.stem.endswith("_labelIds"):
        raise InputError(
            f"{path} holds Cityscapes' regular ids, as its name says, but a label file here holds training ids. Make "
            "records of the dataset (kseg prepare) and score those."
        )
    with reading(path):
        encoded = path.read_bytes()
    ids = decode_label(encoded, str(path))[0]
    mark = mark_of(encoded)
    if mark is not None:
        return to_training_ids(ids, mark)
    others = np.setdiff1d(ids, [*range(count), IGNORE_LABEL])
    if others.size:
        raise InputError(
            f"{path} must hold training ids, 0 to {count - 1} and {IGNORE_LABEL} for void, but holds "
            f"{', '.join(map(str, others[:5]))}. If these are the dataset's own ids, make records of it (kseg prepare) "
            "and score those."
        )
    return ids
