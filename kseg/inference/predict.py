"""`kseg.predict`."""

from __future__ import annotations

import collections.abc
import pathlib
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from PIL.Image import Image as PillowImage

from kseg.inference.label_ids import check_ids, label_ids
from kseg.inference.looks import Looks
from kseg.inference.model_checks import check_scales
from kseg.inference.model_paths import described_models
from kseg.inference.read_image import check_image, most_pixels, read_image
from kseg.io.errors import InputError
from kseg.io.files import StrPath

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
    many = isinstance(image, (list, tuple))
    named = [(one, f"image {i} (counted from 0)") for i, one in enumerate(image)] if many else [(image, "the image")]
    for one, name in named:
        check_image(one, name)
    check_ids(ids)
    check_scales(described_models(model), looks)
    most = most_pixels(looks)
    if not many:  # a file that cannot be read is refused before the model is loaded
        path = str(image) if isinstance(image, (str, pathlib.Path)) else "the image"
        named = [(read_image(image, "the image", most), path)]
    from kseg.inference.compatibility import check_outputs  # here: these import Keras
    from kseg.inference.loading import as_model
    from kseg.inference.predictor import MEASURES, measuring_predictor

    model = as_model(model, looks)
    check_outputs(model)
    found = label_ids(model, ids)
    if found.facts["ids"] != ids:
        raise InputError('The model does not know the ids of its dataset. Leave out ids="dataset".')
    asked = {"confidence": return_confidence, "disagreement": return_disagreement}
    measures = [name for name in MEASURES if asked[name]]
    label = measuring_predictor(model, measures)

    def predict_one(one, name):
        pixels = read_image(one, name, most)
        name = one if isinstance(one, (str, pathlib.Path)) else name
        labels, measured = label(pixels[None], *pixels.shape[:2], [name])
        labels = found.table[labels[0]] if ids == "dataset" else labels[0].astype(np.uint8, copy=False)
        return (labels, *(measured[name][0] for name in measures)) if measures else labels

    found_of_each = [predict_one(one, name) for one, name in named]
    return found_of_each if many else found_of_each[0]
