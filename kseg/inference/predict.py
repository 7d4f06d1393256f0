"""`kseg.predict`, and label maps of files and of splits."""

from __future__ import annotations

import collections.abc
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from tqdm import tqdm

from kseg.data.pipeline.examples import Examples
from kseg.inference.compatibility import check_outputs
from kseg.inference.label_map_files import (
    check_images,
    check_inside,
    check_replaceable,
    label_map_paths,
    save_label_map,
)
from kseg.inference.loading import as_model, label_set_of, model_files
from kseg.inference.looks import ONE_LOOK, AveragingModel, Looks, looking
from kseg.inference.predictor import predictor
from kseg.io.errors import InputError
from kseg.io.files import StrPath, checked_path, is_url, reading, refuse_inputs
from kseg.io.images import decode_image
from kseg.io.progress import progress_bar
from kseg.visualization.label_maps import colorize

if TYPE_CHECKING:
    import keras

    from kseg.inference.label_model import LabelModel

    Model = keras.Model | LabelModel | StrPath
    Image = np.ndarray | StrPath | bytes
    Images = list[Any] | tuple[Any, ...]  # of Image
    Confident = tuple[np.ndarray, np.ndarray]  # labels and confidence


@overload
def predict(
    model: Model,
    image: Image,
    *,
    tile: int | None = None,
    scales: collections.abc.Sequence[float] = (1.0,),
    flip: bool = False,
    return_confidence: Literal[False] = False,
) -> np.ndarray: ...
@overload
def predict(model: Model, image: Image, *, return_confidence: Literal[True], **looks: Any) -> Confident: ...
@overload
def predict(
    model: Model,
    image: Images,
    *,
    tile: int | None = None,
    scales: collections.abc.Sequence[float] = (1.0,),
    flip: bool = False,
    return_confidence: Literal[False] = False,
) -> list[np.ndarray]: ...
@overload
def predict(model: Model, image: Images, *, return_confidence: Literal[True], **looks: Any) -> list[Confident]: ...
def predict(
    model: Model,
    image: Image | Images,
    *,
    tile: int | None = None,
    scales: collections.abc.Sequence[float] = (1.0,),
    flip: bool = False,
    return_confidence: bool = False,
) -> np.ndarray | Confident | list[np.ndarray] | list[Confident]:
    """Label an image, or a list of images of any sizes.

    Args:
        model: keras.Model that gives logits, or what `load_model` takes.
        image: uint8 array (H, W, 3) RGB, a path, or the bytes of a PNG, JPEG, WebP, TIFF or BMP file, which are
            turned as their EXIF orientation says; a list of those gives a list.
        tile, scales, flip: how often, and how, the model looks at the image: `kseg.inference.looks.Looks`.
        return_confidence: give the probability of each pixel's class too.
    Returns:
        uint8 array (H, W) of training ids, of the image's own size; with return_confidence a pair of that and float32
        (H, W), probabilities.
    Raises:
        ValueError: an array of another shape or type, bytes that are not an image, a model without such logits.
        FloatingPointError: scores that are nan or infinite; it names the image.
    """
    looks = Looks(tile, scales, flip)
    model = as_model(model)
    check_outputs(model)
    if return_confidence:
        label = AveragingModel(model, looks).labels_and_confidence
    else:
        label = _labels_by(looking(model, looks))
    if isinstance(image, (list, tuple)):
        return [_predict_one(label, one, f"image {i} (counted from 0)") for i, one in enumerate(image)]
    return _predict_one(label, image, "the image")


def _labels_by(model):
    """Return a function (uint8 (H, W, 3), name) -> class ids uint8 (H, W)."""
    predict_batch = predictor(model)
    return lambda pixels, name: predict_batch(pixels[None], *pixels.shape[:2], [name])[0].astype(np.uint8)


def _predict_one(label, image, name):
    pixels = read_image(image, name)
    return label(pixels, image if isinstance(image, (str, pathlib.Path)) else name)


def predict_files(model, paths, output):
    """Label image files and write NAME.png (training ids) and color/NAME.png for each into a folder.

    An id without a colour (a model of more outputs than classes) is white. Label maps that kseg wrote there before are
    replaced, unless they were changed since. Any other file with such a name is not.

    Args:
        model: as in `predict`. paths: image files whose names differ in more than extension, folder and case.
        output: folder, made if missing.
    Returns:
        list of the label maps' paths.
    Raises:
        ValueError: two images of one name; an output that is an image, of the model, not kseg's or changed since; a
            file whose header is no image's; a model without class colours (nothing is written then). Files whose
            pixels are damaged: all others are written.
        FloatingPointError: scores that are nan or infinite; it names the image.
    """
    if isinstance(paths, (str, os.PathLike)) or not isinstance(paths, collections.abc.Iterable):
        raise InputError(f"paths must be a list of image files, got {paths!r}.")
    paths = [pathlib.Path(checked_path(path, "image")) for path in paths]
    return write_label_maps(model, [(path, path.stem) for path in paths], output)


def write_label_maps(model, images, output, folders=(), progress=False, looks=ONE_LOOK):
    """Do what `predict_files` does, under given names.

    Args:
        images: list of (path, name): NAME.png and color/NAME.png are written, and a name may hold folders ("seq1/0").
        folders: that were walked for them; no output may lie in one. progress: show a bar, and print each label map's
            path when it is written. looks: Looks. model, output: as in `predict_files`.
    Returns:
        list of the label maps' paths.
    Raises:
        As `predict_files`.
    """
    paths = [path for path, _ in images]
    written = _checked_outputs(images, output, [*paths, *folders, *model_files(model)])
    check_images(paths)
    return _label(model, images, written, output, read_image, progress, looks)


def write_split_label_maps(model, data_dir, split, output, *, label_space=None, progress=False, looks=ONE_LOOK):
    """Do what `predict_files` does for every image of a split of a record folder.

    OUTPUT/SPLIT/NAME.png and OUTPUT/color/SPLIT/NAME.png are written, so that splits with equal names do not meet.

    Args:
        model, output: as in `predict_files`. data_dir, split, label_space: as in `kseg.load_dataset`. progress, looks:
            as in `write_label_maps`.
    Returns:
        list of the label maps' paths.
    Raises:
        ValueError: no finished record folder, an unknown split, a name that would leave the output, an output in the
            record folder; and as `predict_files`.
    """
    source = Examples(data_dir, split, label_space=label_space)
    numbers = {f"image {name} of split {split}, record {i}": i for i, name in enumerate(source.split.names)}
    images = list(zip(numbers, (f"{split}/{name}" for name in source.split.names), strict=True))
    for text, name in images:
        check_inside(name, f"{text} of {data_dir}")
    folders = [] if is_url(data_dir) else [data_dir]
    written = _checked_outputs(images, output, [*folders, *model_files(model)])
    return _label(model, images, written, output, lambda text: source[numbers[text]][0], progress, looks)


def _checked_outputs(images, output, inputs):
    """Return the paths of (label map, its colours) for each (image, name); InputError if one may not be written."""
    written = label_map_paths(images, pathlib.Path(checked_path(output, "output")))
    pictures = [picture for pair in written for picture in pair]
    refuse_inputs(pictures, inputs)
    for picture in pictures:
        check_replaceable(picture)
    return written


def _label(model, images, written, output, read, progress, looks):
    """Label each of (image, name), whose pixels `read(image)` gives, and write it; returns the label maps' paths."""
    model = as_model(model)
    check_outputs(model)
    known = label_set_of(model)
    if not known or not known["palette"]:
        raise InputError("The model carries no class colours. Train it with kseg, or call kseg.predict.")
    label = _labels_by(looking(model, looks))
    damaged = []
    with progress_bar("predict", len(images), shown=progress) as bar:
        for (image, _), (ids_path, colour_path) in zip(images, written, strict=True):
            try:
                pixels = read(image)
            except InputError as error:
                damaged.append(str(error))
                _say(f"left out: {error}", progress)
                continue
            ids = label(pixels, image)
            save_label_map(colour_path, colorize(ids, known["palette"]))
            save_label_map(ids_path, ids)
            _say(ids_path, progress)
            bar.update(1)
    if damaged:
        count = f"Only {len(images) - len(damaged)}/{len(images)} label maps are in {output}"
        raise InputError("\n".join([f"{count}; these images cannot be read:", *damaged]))
    return [ids_path for ids_path, _ in written]


def _say(line, shown):
    if shown:
        tqdm.write(str(line))  # above the bar
        sys.stdout.flush()


def read_image(image, name="the image"):
    """Return uint8 (H, W, 3) RGB, upright, of an array, a path or the bytes of a file; ValueError for anything else.

    name: what errors call an array or bytes.
    """
    if isinstance(image, (str, os.PathLike)):
        image = checked_path(image, "image")
        with reading(image):
            encoded = pathlib.Path(image).read_bytes()
        return decode_image(encoded, str(image))[0]
    if isinstance(image, (bytes, bytearray)):
        return decode_image(bytes(image), name)[0]
    try:
        image = np.asarray(image)
    except ValueError as error:  # NumPy's own, of lists of several lengths
        raise InputError(
            f"An image must be uint8 (H, W, 3) RGB, got {type(image).__name__} for {name}: {error}."
        ) from error
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(f"An image must be uint8 (H, W, 3) RGB, got {image.dtype} of shape {image.shape} for {name}.")
    return image
