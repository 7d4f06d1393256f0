"""SavedModel: from an image's bytes or pixels to labels of its own size, where no kseg is installed."""

import json
import os
import pathlib
import shutil

import keras

import kseg
from kseg.data.files import writing
from kseg.errors import FileAccessError, InputError, NotFiniteError
from kseg.finite import first_not_finite
from kseg.prediction import as_model, first_maximum, label_set_of, logits_at, preprocess_layer


def export_saved_model(model, path, *, label_set=None):
    """Write a SavedModel that takes images of any size and gives label maps of that size.

    Signatures: `serving_default`: images uint8 (B, H, W, 3) -> labels uint8 (B, H, W), confidence float32 (B, H, W),
    the softmax of the label. `encoded`: the bytes of one PNG or JPEG, a string scalar -> labels (H, W), confidence
    (H, W). Beside them `classes.json`: name, classes, palette, ignore_label.

    Args:
        model: keras.Model that gives logits, a run folder or a .keras file.
        path: the folder to write; one that holds a SavedModel already is replaced.
        label_set: dict of name, classes and palette, where the model does not carry it.
    Returns:
        pathlib.Path of the folder.
    Raises:
        ValueError: no class names; a backend other than TensorFlow; a folder that is something else.
        OSError: it could not be written; what was there stays.
        FloatingPointError: a weight is nan or infinite; it names the weight.
    """
    if keras.backend.backend() != "tensorflow":
        raise InputError(f"A SavedModel needs KERAS_BACKEND=tensorflow, got {keras.backend.backend()}.")
    model = as_model(model)
    if not isinstance(model, keras.Model):
        raise InputError("The model is a SavedModel already: export the .keras file of its run.")
    if weight := first_not_finite(model.weights):
        raise NotFiniteError(
            f"The weight {weight} is not finite, so the model has no labels to give. Export weights of an earlier step."
        )
    label_set = label_set or label_set_of(model)
    if not label_set:
        raise InputError("The model carries no class names. Give label_set={'name', 'classes', 'palette'}.")
    path = pathlib.Path(path)
    if path.exists() and not (path / "saved_model.pb").exists():
        raise InputError(f"{path} exists and is no SavedModel. Choose another folder or remove it.")
    layer = preprocess_layer(model)
    facts = {
        **label_set,
        "ignore_label": 255,
        "size": layer.size if layer else None,
        "kseg_version": kseg.__version__,
    }
    temporary, old = (path.with_name(f".tmp-{name}{path.name}") for name in ("", "old-"))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            _write(model, temporary)
            (temporary / "classes.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
        finally:
            for folder in (temporary, old):
                shutil.rmtree(folder, ignore_errors=True)
    return path


def _write(model, folder):
    import tensorflow as tf

    from kseg.data.pipeline import decode_image

    def label(images):
        height, width = tf.unstack(tf.shape(images)[1:3])
        logits = logits_at(model, images, height, width)
        return {
            "labels": tf.cast(first_maximum(logits), tf.uint8),
            "confidence": tf.reduce_max(tf.nn.softmax(logits), axis=-1),
        }

    def label_encoded(encoded):
        return {name: value[0] for name, value in label(decode_image(encoded)[tf.newaxis]).items()}

    archive = keras.export.ExportArchive()
    archive.track(model)
    images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
    archive.add_endpoint("serving_default", label, input_signature=[images])
    archive.add_endpoint("encoded", label_encoded, input_signature=[tf.TensorSpec((), tf.string, name="encoded")])
    try:
        archive.write_out(str(folder), verbose=False)
    except tf.errors.OpError as error:  # a full disk too
        raise FileAccessError(error.message) from error
