"""From any trained model to label maps of the image's own size: what evaluation, `predict` and the export share."""

import collections.abc
import functools
import json
import os
import pathlib
import re
import struct
import traceback
import unicodedata
import zipfile
import zlib

import keras
import numpy as np
from keras import ops
from PIL import Image, PngImagePlugin

from kseg import __version__
from kseg.data.augment import PADDING
from kseg.data.codec import decode_image
from kseg.data.files import checked_path, reading, refuse_inputs, replacing, writing
from kseg.data.zips import check_unpacked
from kseg.errors import InputError, MissingFileError
from kseg.finite import check_logits
from kseg.layers import Preprocess
from kseg.runs import FLAGS_FILE, RunFolder
from kseg.visualization import colorize

_PACKAGE = pathlib.Path(__file__).parent
# What Keras may raise about a file of arbitrary bytes, or a user's own layers.
DAMAGED = (OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError, AttributeError, ImportError)
DAMAGED += (ArithmeticError, zipfile.BadZipFile, zlib.error, struct.error)
_UNREGISTERED = re.compile(r"Could not locate (class|function) '([^']+)'")
REGISTER = "the decorator @keras.saving.register_keras_serializable()"


def load_model(path):
    """Load a run folder (the weights it kept), a .keras file, or a SavedModel folder of `export_saved_model`.

    Args:
        path: str or path.
    Returns:
        keras.Model, or SavedModel, which has no layers but predicts and evaluates alike.
    Raises:
        FileNotFoundError: nothing there. ValueError: something else, or a damaged file.
    """
    path = pathlib.Path(checked_path(path, "model"))
    if not path.exists():
        raise MissingFileError(f"No model at {path}: give a run folder, a .keras file or a SavedModel folder.")
    if (path / "saved_model.pb").exists():
        return SavedModel(path)
    if path.is_dir():
        folder = RunFolder(path)
        kept = folder.kept_model((folder.stored_or_none() or {}).get("keep", "best"))
        if not kept.exists():
            raise InputError(f"{path} holds neither saved_model.pb nor {kept.name}: it is no model and no scored run.")
        path = kept
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive, path)
            if damaged := archive.testzip():  # Keras reads on where a checksum fails
                raise InputError(f"the checksum of {damaged} differs")
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except DAMAGED as error:
        if _failed_in_kseg(error):
            raise
        if unregistered := _UNREGISTERED.search(str(error)):
            raise InputError(
                f"{path} needs the {unregistered[1]} {unregistered[2]}. Import the module that defines it first; it "
                f"needs {REGISTER}."
            ) from error
        raise InputError(f"{path} is damaged or no .keras file: {why_not_loaded(error)}") from error


def why_not_loaded(error):
    """Return in a line what Keras says about a model that it cannot save or load."""
    if unregistered := _UNREGISTERED.search(str(error)):
        kind, name = unregistered.groups()
        return f"the {kind} {name} is not registered. Write {REGISTER} on the line above it."
    # Of the error of a layer in a model the last part, and of that the first paragraph.
    text = str(error).split("Exception encountered: ")[-1].strip().split("\n\n")[0]
    return " ".join(text.split())[:400] or type(error).__name__


def _failed_in_kseg(error):
    """Whether it was code of kseg's that failed beneath `load_model`, otherwise than by refusing what it was given."""
    while error is not None:
        codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        ours = [code for code in codes if pathlib.Path(code.co_filename).is_relative_to(_PACKAGE)]
        if set(ours) - {load_model.__code__} and not isinstance(error, InputError):
            return True
        error = error.__cause__ or error.__context__
    return False


def as_model(model):
    """Return a model as it is, and what `load_model` gives for a path; ValueError for what is neither."""
    if isinstance(model, (str, os.PathLike)):
        model = load_model(model)
    if isinstance(model, SavedModel):
        return model
    if not isinstance(model, keras.Model):
        raise InputError(f"model must be a keras.Model or the path of one, got {model!r}.")
    shapes = [getattr(model, name, None) for name in ("input_shape", "output_shape")]
    if not all(isinstance(shape, tuple) and len(shape) == 4 for shape in shapes) or shapes[0][3] != 3:
        raise InputError(
            f"{model.name} must take images (B, H, W, 3) and give logits (B, H, W, C), but takes {shapes[0]} and gives "
            f"{shapes[1]}."
        )
    return model


def model_files(model):
    """Return the paths that no output may touch when a model is read: its own, and those of the run that it lies in.

    Args:
        model: a path that `load_model` takes; anything else (a keras.Model) is of no file.
    """
    if not isinstance(model, (str, pathlib.Path)):
        return []
    path = pathlib.Path(checked_path(model, "model"))
    runs = [folder for folder in (path, path.absolute().parent) if (folder / FLAGS_FILE).exists()]
    parts = [part for folder in runs for part in RunFolder(folder).parts]
    return parts if path in runs else [path, *parts]


class SavedModel:
    """A model exported by `export_saved_model`, read back. TensorFlow only."""

    def __init__(self, path):
        import tensorflow as tf

        path = pathlib.Path(path)
        try:  # nothing of kseg's own runs here
            self._loaded = tf.saved_model.load(str(path))
            self._serve = self._loaded.signatures["serving_default"]
            self.label_set = json.loads((path / "classes.json").read_bytes())
        except (OSError, ValueError, KeyError, TypeError, RecursionError, tf.errors.OpError) as error:
            raise InputError(f"{path} is no SavedModel that kseg exported: {error}") from error
        known = self.label_set if isinstance(self.label_set, dict) else {}
        if not isinstance(known.get("classes"), list) or not isinstance(known.get("palette"), list):
            raise InputError(
                f"{path} is no SavedModel that kseg exported: its classes.json has no classes and palette."
            )
        self.num_classes = len(known["classes"])

    @property
    def weights(self):
        """The variables, in the signature's order."""
        return self._serve.variables

    def labels(self, images):
        """uint8 (B, H, W, 3) -> uint8 (B, H, W), and whether each image's scores are finite, bool (B,)."""
        given = self._serve(images=ops.convert_to_tensor(images, dtype="uint8"))
        return given["labels"], _all_finite(given["confidence"])  # nan where a logit is nan or inf


def preprocess_layer(model):
    """Return the model's Preprocess layer, or None for a model that kseg did not build."""
    return next((layer for layer in model.layers if isinstance(layer, Preprocess)), None)


def label_set_of(model):
    """Return the dict of name, classes and palette that the model carries, or None."""
    if isinstance(model, SavedModel):
        return model.label_set
    layer = preprocess_layer(model)
    return layer.label_set if layer else None


def logits_at(model, images, height, width):
    """Run a model on images of any size and give logits at a size.

    A model of fixed size gets the image resized to it (bilinear, antialiased). A model of free size that was trained
    at a size of the settings (or on crops out of it) gets the image resized to that, any other at its own; then padded
    with the mean pixel (as in training) to the multiple it needs. Any keras.Model that gives logits will do.

    Args:
        model: keras.Model giving logits (B, h, w, C). images: uint8 or float (B, H, W, 3), RGB 0..255.
        height, width: of the logits wanted.
    Returns:
        float32 (B, height, width, C), resized bilinearly where the model's own differ.
    """
    images = ops.cast(images, "float32")
    rows, columns = model.input_shape[1:3]
    if rows and columns:
        logits = ops.cast(model(_resize(images, rows, columns, antialias=True), training=False), "float32")
    else:
        layer = preprocess_layer(model)
        multiple = layer.multiple if layer else 1
        if layer and layer.size:
            images = _resize(images, *layer.size, antialias=True)
        image_height, image_width = ops.shape(images)[1:3]
        below, right = -image_height % multiple, -image_width % multiple
        shift = ops.convert_to_tensor(PADDING, dtype="float32")  # whole numbers: whole pixel values come back exact
        padded = ops.pad(images - shift, [(0, 0), (0, below), (0, right), (0, 0)]) + shift
        logits = ops.cast(model(padded, training=False), "float32")[:, :image_height, :image_width]
    return _resize(logits, height, width)


def _resize(images, height, width, antialias=False, interpolation="bilinear"):
    if keras.backend.backend() == "tensorflow":  # Keras' own takes no sizes that are tensors
        import tensorflow as tf

        return tf.image.resize(images, (height, width), method=interpolation, antialias=antialias)
    return ops.image.resize(images, (height, width), interpolation=interpolation, antialias=antialias)


def first_maximum(logits):
    """Class of the largest logit (B, H, W, C) -> (B, H, W), the first of equals, in ops that every exporter knows."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.argmax(logits, axis=-1, output_type=tf.int32)
    return ops.argmax(logits, axis=-1)


def predict(model, image):
    """Label an image, or a list of images of any sizes.

    Args:
        model: keras.Model that gives logits, or what `load_model` takes.
        image: uint8 array (H, W, 3) RGB, a path, or the bytes of a PNG, JPEG, WebP, TIFF or BMP file, which are
            turned as their EXIF orientation says; a list of those gives a list.
    Returns:
        uint8 array (H, W) of training ids, of the image's own size.
    Raises:
        ValueError: an array of another shape or type, bytes that are no image, a model without these logits.
        FloatingPointError: scores that are nan or infinite; it names the image.
    """
    model = as_model(model)
    label = labeller(model)
    if isinstance(image, (list, tuple)):
        return [_predict_one(label, one, f"image {i} (counted from 0)") for i, one in enumerate(image)]
    return _predict_one(label, image, "the image")


def _predict_one(label, image, name):
    pixels = read_image(image)
    name = image if isinstance(image, (str, pathlib.Path)) else name
    return label(pixels[None], *pixels.shape[:2], [name])[0].astype(np.uint8)


def predict_files(model, paths, output):
    """Label image files and write NAME.png (training ids) and color/NAME.png for each into a folder.

    An id without a colour (a model of more outputs than classes) is white. Label maps that kseg wrote there before are
    replaced, any other file of such a name is not.

    Args:
        model: as in `predict`. paths: image files whose names differ in more than extension, folder and case.
        output: folder, made if missing.
    Returns:
        list of the label maps' paths.
    Raises:
        ValueError: two images of one name, an output that is an image, of the model or not kseg's (nothing is written
            then); a file that is no image, a model without class colours.
        FloatingPointError: scores that are nan or infinite; it names the image.
    """
    if isinstance(paths, (str, os.PathLike)) or not isinstance(paths, collections.abc.Iterable):
        raise InputError(f"paths must be a list of image files, got {paths!r}.")
    paths = [pathlib.Path(checked_path(path, "image")) for path in paths]
    written = _label_paths(paths, pathlib.Path(checked_path(output, "output")))
    pictures = [picture for pair in written for picture in pair]
    refuse_inputs(pictures, [*paths, *model_files(model)])
    for picture in pictures:
        _check_ours(picture)
    model = as_model(model)
    known = label_set_of(model)
    if not known:
        raise InputError("The model carries no class colours. Train it with kseg, or call kseg.predict.")
    label = labeller(model)
    for path, (ids_path, colour_path) in zip(paths, written, strict=True):
        ids = _predict_one(label, path, path)
        _save(colour_path, colorize(ids, known["palette"]))
        _save(ids_path, ids)
    return [ids_path for ids_path, _ in written]


def _label_paths(paths, output):
    """Return (label map, its colours) for each image; InputError where two would be one file on some system."""
    first = {}
    for path in paths:
        name = unicodedata.normalize("NFC", path.stem).casefold()
        other = first.setdefault(name, path)
        if other is not path:
            raise InputError(
                f"Images need different names, for NAME.png is written for each, but {other} and {path} differ only in "
                "folder, extension or case. Rename one, or call once for each with an output folder of its own."
            )
    return [(output / f"{path.stem}.png", output / "color" / f"{path.stem}.png") for path in paths]


_MADE_BY = "kseg label map"  # a text in each PNG, by which it is known as kseg's


def _check_ours(path):
    """Raise InputError for anything at a path but a picture that `_save` wrote."""
    if not (path.exists() or path.is_symlink()):
        return
    try:
        with Image.open(path, formats=("PNG",)) as image:
            ours = _MADE_BY in image.info
    except (OSError, ValueError, SyntaxError):
        ours = False
    if not ours:
        raise InputError(f"{path} is there and no label map that kseg wrote. Choose another output folder, or move it.")


def _save(path, picture):
    text = PngImagePlugin.PngInfo()
    text.add_text(_MADE_BY, __version__)
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, pnginfo=text)


def labeller(model):
    """Return a function (uint8 images (B, H, W, 3), height, width, names) -> class ids, NumPy (B, height, width).

    It is compiled once for each model and kept with it. Where an image's logits are not finite it raises a
    NotFiniteError that calls the image by its name (`names`: B texts, "image 3").
    """
    if isinstance(model, SavedModel):
        compiled = functools.partial(_exported_labels, model)
    else:
        if not hasattr(model, "kseg_labeller"):
            model.kseg_labeller = _compiled_labeller(model)
        compiled = model.kseg_labeller

    def label(images, height, width, names):
        ids, finite = compiled(images, height, width)
        check_logits(finite, names, model)
        return np.asarray(ids)

    return label


def _exported_labels(model, images, height, width):
    ids, finite = model.labels(images)
    return _resize(ids[..., None], height, width, interpolation="nearest")[..., 0], finite


def label_and_check(logits):
    """Logits (B, H, W, C) -> class ids (B, H, W), and whether all logits of an image are finite, bool (B,)."""
    return first_maximum(logits), _all_finite(logits)


def _all_finite(values):
    return ops.all(ops.isfinite(values), axis=tuple(range(1, len(values.shape))))


def _compiled_labeller(model):
    def label(images, height, width):
        return label_and_check(logits_at(model, images, height, width))

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        size = tf.TensorSpec((), tf.int32)
        images = tf.TensorSpec((None, None, None, 3), tf.uint8)
        return tf.function(label, input_signature=(images, size, size))
    if keras.backend.backend() == "jax":
        return _jax_labeller(model, label)
    return label


def _jax_labeller(model, label):
    """Compile for each size; the weights are arguments, so that a model in training is always the present one."""
    import jax

    def with_weights(values, images, height, width):
        with keras.StatelessScope(state_mapping=zip(model.variables, values, strict=True)):
            return label(images, height, width)

    compiled = jax.jit(with_weights, static_argnums=(2, 3))
    return lambda images, height, width: compiled([v.value for v in model.variables], images, int(height), int(width))


def read_image(image):
    """Return uint8 (H, W, 3) RGB, upright, of an array, a path or the bytes of a file; ValueError says what came."""
    if isinstance(image, (str, os.PathLike)):
        image = checked_path(image, "image")
        with reading(image):
            encoded = pathlib.Path(image).read_bytes()
        return decode_image(encoded, str(image))[0]
    if isinstance(image, (bytes, bytearray)):
        return decode_image(bytes(image), "image")[0]
    try:
        image = np.asarray(image)
    except ValueError as error:  # NumPy's own, of lists of several lengths
        raise InputError(f"An image must be uint8 (H, W, 3) RGB, got {type(image).__name__}: {error}.") from error
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"An image must be uint8 (H, W, 3) RGB, got {image.dtype} of shape {image.shape}.")
    return image
