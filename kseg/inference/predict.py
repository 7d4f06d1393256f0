"""`kseg.predict`, and label maps of files and of splits."""

from __future__ import annotations

import collections.abc
import os
import pathlib
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from PIL.Image import Image as PillowImage

from kseg.data.pipeline.examples import Examples
from kseg.inference import videos
from kseg.inference.compatibility import check_outputs
from kseg.inference.input_files import is_video
from kseg.inference.label_ids import label_ids
from kseg.inference.label_map_files import USUAL, check_inside, check_replaceable, output_paths
from kseg.inference.labelling import Labelling
from kseg.inference.loading import as_model
from kseg.inference.looks import ONE_LOOK, Looks
from kseg.inference.model_paths import model_files
from kseg.inference.predictor import MEASURES, measuring_predictor
from kseg.io.errors import InputError, MissingFileError
from kseg.io.files import StrPath, checked_path, is_url, reading
from kseg.io.images import MAX_PIXELS, MAX_TILED_PIXELS, decode_image, upright_rgb
from kseg.io.outputs import refuse_inputs

if TYPE_CHECKING:
    import keras

    from kseg.inference.label_model import LabelModel

    Model = keras.Model | LabelModel | StrPath | collections.abc.Sequence[Any]  # of models
    Image = np.ndarray | StrPath | bytes | PillowImage
    Images = list[Any] | tuple[Any, ...]  # of Image
    Measured = tuple[np.ndarray, ...]  # labels, and what was asked for of confidence and disagreement
    Ids = Literal["train", "dataset"]


@overload
def predict(
    model: Model,
    image: Image,
    *,
    tile: int | None = None,
    scales: collections.abc.Sequence[float] = (1.0,),
    flip: bool = False,
    return_confidence: Literal[False] = False,
    return_disagreement: Literal[False] = False,
    ids: Ids = "train",
) -> np.ndarray: ...
@overload
def predict(model: Model, image: Image, *, return_confidence: Literal[True], **options: Any) -> Measured: ...
@overload
def predict(model: Model, image: Image, *, return_disagreement: Literal[True], **options: Any) -> Measured: ...
@overload
def predict(
    model: Model,
    image: Images,
    *,
    tile: int | None = None,
    scales: collections.abc.Sequence[float] = (1.0,),
    flip: bool = False,
    return_confidence: Literal[False] = False,
    return_disagreement: Literal[False] = False,
    ids: Ids = "train",
) -> list[np.ndarray]: ...
@overload
def predict(model: Model, image: Images, *, return_confidence: Literal[True], **options: Any) -> list[Measured]: ...
@overload
def predict(model: Model, image: Images, *, return_disagreement: Literal[True], **options: Any) -> list[Measured]: ...
def predict(
    model: Model,
    image: Image | Images,
    *,
    tile: int | None = None,
    scales: collections.abc.Sequence[float] = (1.0,),
    flip: bool = False,
    return_confidence: bool = False,
    return_disagreement: bool = False,
    ids: Ids = "train",
) -> np.ndarray | Measured | list[np.ndarray] | list[Measured]:
    """Label an image, or a list of images of any sizes.

    Args:
        model: keras.Model that gives logits, or what `load_model` takes; or a list of those: the mean of their
            probabilities, an ensemble (`kseg.inference.ensemble.AveragingModel`).
        image: uint8 array (H, W, 3) RGB, a path, or the bytes of a PNG, JPEG, WebP, TIFF or BMP file, or an image that
            Pillow opened. All but arrays are turned as their EXIF orientation says. A list of those gives a list.
        tile, scales, flip: how often, and how, the model looks at the image: `kseg.inference.looks.Looks`.
        return_confidence: give the probability of each pixel's class too.
        return_disagreement: of an ensemble: give how far its models disagree at each pixel too, in nats
            (`kseg.inference.ensemble.disagreement`).
        ids: "train" for training ids; "dataset" for the dataset's own, as the command `predict` writes them, where the
            model knows these.
    Returns:
        uint8 array (H, W) of ids, of the image's own size; with return_confidence or return_disagreement a tuple of
        that and a float32 array (H, W) for each, in this order.
    Raises:
        ValueError: an array of another shape or type, bytes that are not an image, a model without such logits,
            models of other classes than each other, the disagreement of one model.
        FloatingPointError: scores that are nan or infinite; it names the image.
    """
    looks = Looks(tile, scales, flip)
    model = as_model(model, looks)
    check_outputs(model)
    found = label_ids(model, ids)
    if found.facts["ids"] != ids:
        raise InputError('The model does not know the ids of its dataset. Leave out ids="dataset".')
    asked = {"confidence": return_confidence, "disagreement": return_disagreement}
    measures = [name for name in MEASURES if asked[name]]
    label = measuring_predictor(model, measures)
    most = _most_pixels(looks)

    def predict_one(one, name):
        pixels = read_image(one, name, most)
        name = one if isinstance(one, (str, pathlib.Path)) else name
        labels, measured = label(pixels[None], *pixels.shape[:2], [name])
        labels = found.table[labels[0]] if ids == "dataset" else labels[0].astype(np.uint8, copy=False)
        return (labels, *(measured[name][0] for name in measures)) if measures else labels

    if isinstance(image, (list, tuple)):
        return [predict_one(one, f"image {i} (counted from 0)") for i, one in enumerate(image)]
    return predict_one(image, "the image")


def _most_pixels(looks):
    return MAX_PIXELS if looks.tile is None else MAX_TILED_PIXELS


def predict_files(model, paths, output, **options):
    """Label image and video files and write NAME.png (the dataset's ids) and color/NAME.png for each into a folder.

    classes.json beside them says which ids they are, with names and colours. Of a video the label maps are NAME.mkv
    (FFV1, lossless, one channel) and color/NAME.mp4. An id without a colour (a model of more outputs than classes) is
    white. Label maps that kseg wrote there before are replaced, unless they were changed since. Any other file with
    such a name is not, and no video.

    Args:
        model: as in `predict`. paths: files whose names differ in more than extension, folder and case.
        output: folder, made if missing. options: as in `write_label_maps`.
    Returns:
        list of the label maps' paths.
    Raises:
        ValueError: two images of one name; a file that is missing; an output that is an image, of the model, not kseg's
            or changed since; a model without class colours (nothing is written then).
        DamagedInputError: files that are damaged; all others are written.
        FloatingPointError: scores that are nan or infinite; it names the image.
    """
    if isinstance(paths, (str, os.PathLike)) or not isinstance(paths, collections.abc.Iterable):
        raise InputError(f"paths must be a list of files, got {paths!r}.")
    paths = [pathlib.Path(checked_path(path, "image")) for path in paths]
    return write_label_maps(model, [(path, path.stem) for path in paths], output, **options)


def write_label_maps(model, images, output, *, folders=(), left_out=(), wanted=USUAL, looks=ONE_LOOK, **options):
    """Do what `predict_files` does, under given names.

    Args:
        images: list of (path, name): NAME.png and color/NAME.png are written, and a name may hold folders ("seq1/0").
        folders: that were walked for them; no output may lie in one. left_out: lines on files in them that are neither
            images nor videos, which count as damaged. wanted: which files are written, with which ids.
        looks: Looks. model, output: as in `predict_files`. options: batch_size and progress of `labelling.Labelling`.
    Returns:
        list of the label maps' paths (of the first kind of file that is wanted).
    Raises:
        As `predict_files`.
    """
    paths = [path for path, _ in images]
    written = _checked_outputs(images, output, wanted, [*paths, *folders, *model_files(model)])
    for path in paths:
        if not os.path.exists(path):
            raise MissingFileError(f"There is no {path}.")
    if any(map(is_video, paths)):
        videos.check_installed()
    labelling = Labelling(model, wanted=wanted, looks=looks, **options)
    most = _most_pixels(looks)
    labelling.run(images, written, pathlib.Path(output), lambda path: read_image(path, most=most), left_out)
    return [files[wanted.kinds[0]] for files in written]


def write_split_label_maps(model, data_dir, split, output, *, label_space=None, wanted=USUAL, **options):
    """Do what `predict_files` does for every image of a split of a record folder.

    OUTPUT/SPLIT/NAME.png and OUTPUT/color/SPLIT/NAME.png are written, so that splits with equal names do not meet.

    Args:
        model, output: as in `predict_files`. data_dir, split, label_space: as in `kseg.load_dataset`. wanted: as in
            `write_label_maps`. options: looks, batch_size and progress of `labelling.Labelling`.
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
    written = _checked_outputs(images, output, wanted, [*folders, *model_files(model)])
    labelling = Labelling(model, wanted=wanted, **options)
    labelling.run(images, written, pathlib.Path(output), lambda text: source[numbers[text]][0])
    return [files[wanted.kinds[0]] for files in written]


def _checked_outputs(images, output, wanted, inputs):
    """Return {kind: path} of the files for each (image, name); InputError if one may not be written."""
    written = output_paths(images, pathlib.Path(checked_path(output, "output")), wanted.kinds)
    pictures = [picture for files in written for picture in files.values()]
    refuse_inputs(pictures, inputs)
    for picture in pictures:
        check_replaceable(picture)
    return written


def read_image(image, name="the image", most=MAX_PIXELS):
    """Return uint8 (H, W, 3) RGB, upright, of an array, a path, the bytes of a file or Pillow's image.

    ValueError for anything else.

    name: what errors call an array or bytes. most: pixels that a file may have.
    """
    if isinstance(image, (str, os.PathLike)):
        image = checked_path(image, "image")
        with reading(image):
            encoded = pathlib.Path(image).read_bytes()
        return decode_image(encoded, str(image), most=most)[0]
    if isinstance(image, (bytes, bytearray)):
        return decode_image(bytes(image), name, most=most)[0]
    if isinstance(image, PillowImage):
        return upright_rgb(image, name)
    try:
        array = np.asarray(image)
    except ValueError as error:  # NumPy's own, of lists of several lengths
        raise InputError(
            f"An image must be uint8 (H, W, 3) RGB, got {type(image).__name__} for {name}: {error}."
        ) from error
    if array.dtype == object:
        raise InputError(f"An image must be a path or uint8 (H, W, 3) RGB, got {type(image).__name__} for {name}.")
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise InputError(f"An image must be uint8 (H, W, 3) RGB, got {array.dtype} of shape {array.shape} for {name}.")
    return array
