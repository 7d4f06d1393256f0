"""SavedModel: from an image's bytes or pixels to labels of its own size, where no kseg is installed."""

from __future__ import annotations

import contextlib
import pathlib
import re
import signal
import threading
from typing import Any

import keras

import kseg
from kseg.inference.compatibility import check_outputs, noise, warn_of_probabilities
from kseg.inference.finite import first_not_finite
from kseg.inference.loading import as_model, label_set_of, model_files
from kseg.inference.logits import first_maximum, logits_at
from kseg.io.errors import FileAccessError, InputError, NotFiniteError, is_whole
from kseg.io.files import StrPath, checked_path, refuse_inputs, replacing_content, write_json, writing
from kseg.layers.preprocessing import preprocess_layer


def carried(split):
    """Return what a model says about itself: name, classes and palette of its label set, digest of its records."""
    facts = split.label_set.to_json()
    return {**{name: facts[name] for name in ("name", "classes", "palette")}, "records": split.manifest.digest}


_CLASSES = "classes.json"
_GRAPH = "saved_model.pb"
_OTHER_FORMATS = (".keras", ".h5", ".hdf5", ".pb", ".tflite", ".onnx", ".pt", ".pth", ".zip")
_OWN = re.compile(r"classes\.json|(saved_model|fingerprint|keras_metadata)\.pb|assets/|variables/(variables\.[\w.-]+)?")


def export_saved_model(
    model: keras.Model | StrPath, path: StrPath, *, label_set: dict[str, Any] | None = None
) -> pathlib.Path:
    """Write a SavedModel that takes images of any size and gives label maps of that size.

    Signatures: `serving_default`: images uint8 (B, H, W, 3) -> labels uint8 (B, H, W), confidence float32 (B, H, W),
    the softmax of the label. `encoded`: PNG or JPEG files of one size, strings (B,) -> the same; a batch of one is
    `[bytes]`. It decodes the pixels as they are stored: TensorFlow cannot turn a photograph by its EXIF orientation as
    `kseg.predict` does, so turn it before you send it (phones write such files). Files of several sizes, of other
    formats and CMYK JPEG are an error of the graph that says so.
    Beside them `classes.json`: name, classes, palette, ignore_label.

    Args:
        model: keras.Model that gives logits, a run folder or a .keras file.
        path: the folder to write: new, empty, or holding only an earlier export, which is replaced when the new one is
            complete. A link to such a folder stays a link.
        label_set: dict of name, classes and palette, if the model does not carry it.
    Returns:
        pathlib.Path of the folder.
    Raises:
        ValueError: no class names; a backend other than TensorFlow; a folder that holds something else; one that
            another process fills, or that is, holds or lies in what is read.
        OSError: it could not be written; what was there stays. KeyboardInterrupt: after Ctrl-C, likewise.
        FloatingPointError: a weight is nan or infinite; it names the weight.
    """
    if keras.backend.backend() != "tensorflow":
        raise InputError(f"A SavedModel needs KERAS_BACKEND=tensorflow, got {keras.backend.backend()}.")
    path = pathlib.Path(checked_path(path, "path"))
    if path.suffix in _OTHER_FORMATS:
        raise InputError(f"A SavedModel is a folder, so its name must not end in {path.suffix}, got {path}.")
    # A run's SavedModel is no input: its weights are read from the .keras file.
    refuse_inputs([path], [file for file in model_files(model) if file.name != "saved_model"])
    model = as_model(model)
    if not isinstance(model, keras.Model):
        raise InputError("The model is a SavedModel already: export the .keras file of its run.")
    check_outputs(model)
    if label_set is not None and not (isinstance(label_set, dict) and {"name", "classes", "palette"} <= set(label_set)):
        raise InputError(f"label_set must be a dict of name, classes and palette, got {label_set!r}.")
    if label_set is not None:
        _check_label_set(label_set, model.output_shape[-1])
    if weight := first_not_finite(model.weights):
        raise NotFiniteError(
            f"The weight {weight} is not finite, so the model cannot give labels. Export weights of an earlier step."
        )
    label_set = label_set or label_set_of(model)
    if not label_set:
        raise InputError(
            "The model carries no class names. Give label_set={'name', 'classes', 'palette'}, as in classes.json "
            "of the SavedModel that its run wrote (WORKDIR/saved_model), or use that SavedModel."
        )
    layer = preprocess_layer(model)
    if layer or None not in model.input_shape[1:3]:  # otherwise nothing says which sizes the model takes
        warn_of_probabilities(model, logits_at(model, noise((64, 64)), 64, 64))
    facts = {
        **label_set,
        "ignore_label": 255,
        "size": getattr(preprocess_layer(model), "size", None),
        "kseg_version": kseg.__version__,
    }
    with replacing_content(path, _OWN, _CLASSES, _GRAPH) as folder, writing(path), _ctrl_c_kept():
        _write(model, folder)
        write_json(folder / _CLASSES, facts)
    return path


@contextlib.contextmanager
def _ctrl_c_kept():
    """A block that ends with KeyboardInterrupt after a Ctrl-C, also where a callback of TensorFlow's swallowed it.

    Python ignores what is raised in a callback. Another handler than Python's own (that of a training run) is left.
    """
    own = signal.getsignal(signal.SIGINT)
    if own is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []

    def note(number, frame):
        came.append(number)
        own(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, own)
    if came:
        raise KeyboardInterrupt


def _check_label_set(label_set, outputs):
    """Refuse names and colours that cannot be those of a model with so many outputs."""
    classes = label_set["classes"]
    palette = label_set["palette"]
    named = isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
    if not named or not 1 <= len(classes) <= outputs:
        raise InputError(f"label_set needs the names of the model's {outputs} classes, got {classes!r}.")
    drawn = isinstance(palette, (list, tuple)) and len(palette) == len(classes)
    if not drawn or not all(isinstance(c, (list, tuple)) and len(c) == 3 and all(map(_is_byte, c)) for c in palette):
        raise InputError(f"label_set needs a colour of three whole numbers of 0..255 for each class, got {palette!r}.")


def _is_byte(value):
    return is_whole(value) and 0 <= value <= 255


def _write(model, folder):
    import tensorflow as tf

    from kseg.data.pipeline.examples_tensorflow import decode_images

    def predict(images):
        height, width = tf.unstack(tf.shape(images)[1:3])
        logits = logits_at(model, images, height, width)
        return {
            "labels": tf.cast(first_maximum(logits), tf.uint8),
            "confidence": tf.reduce_max(tf.nn.softmax(logits), axis=-1),
        }

    def predict_encoded(encoded):
        return predict(decode_images(encoded))

    archive = keras.export.ExportArchive()
    archive.track(model)
    images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
    archive.add_endpoint("serving_default", predict, input_signature=[images])
    encoded = tf.TensorSpec((None,), tf.string, name="encoded")
    archive.add_endpoint("encoded", predict_encoded, input_signature=[encoded])
    try:
        archive.write_out(str(folder), verbose=False)
    except tf.errors.OpError as error:  # a full disk too
        raise FileAccessError(error.message) from error
