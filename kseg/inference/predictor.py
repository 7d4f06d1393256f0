"""A model as a compiled function from images to class ids."""

import keras
import numpy as np
from keras import ops

from kseg.inference.finite import all_finite, check_logits
from kseg.inference.label_model import LabelModel
from kseg.inference.logits import first_maximum, logits_at
from kseg.inference.looks import ONE_MODEL
from kseg.io.errors import InputError
from kseg.layers.preprocessing import preprocess_layer

MEASURES = ("confidence", "disagreement")  # of a pixel's label; what gives the second gives the first


def predictor(model):
    """Return a function (uint8 images (B, H, W, 3), height, width, names) -> class ids, NumPy (B, height, width).

    Where an image's logits are not finite it raises a NotFiniteError that calls the image by its name (`names`: B
    texts, "image 3").
    """
    if isinstance(model, LabelModel):
        return model.predict
    compiled = compiled_for(model, "labels", _labels_of(model))

    def predict(images, height, width, names):
        ids, finite = compiled(images, height, width)
        check_logits(finite, names, model)
        return np.asarray(ids)

    return predict


def gives_confidence(model):
    """Whether a model has a `confident_predictor`: not if it gives label maps alone."""
    return not isinstance(model, LabelModel) or (
        type(model).predict_with_confidence is not LabelModel.predict_with_confidence
    )


def confident_predictor(model):
    """Return `predictor`'s function, but it returns (class ids, probabilities of these classes).

    The probabilities are float32 (B, height, width). InputError for a model that gives label maps alone.
    """
    if isinstance(model, LabelModel):
        return model.predict_with_confidence

    compiled = compiled_with_confidence(model)

    def predict(images, height, width, names):
        ids, finite, confidence = compiled(images, height, width)
        check_logits(finite, names, model)
        return np.asarray(ids), np.asarray(confidence)

    return predict


def measuring_predictor(model, measures):
    """Return `predictor`'s function, but it returns (class ids, {measure: float32 (B, height, width)}).

    Args:
        measures: which of MEASURES, any number. "confidence": as `confident_predictor`. "disagreement": of an
            ensemble, as `LabelModel.predict_with_disagreement`.
    Raises:
        InputError: a model that does not give them.
    """
    run = predictor(model)
    if "confidence" in measures:
        run = confident_predictor(model)
    if "disagreement" in measures:
        if not isinstance(model, LabelModel):
            raise InputError(ONE_MODEL)
        run = model.predict_with_disagreement

    def predict(images, height, width, names):
        found = run(images, height, width, names)
        if not measures:
            return found, {}
        return found[0], {name: part for name, part in zip(MEASURES, found[1:], strict=False) if name in measures}

    return predict


def compiled_with_confidence(model):
    """`compiled_for` a function that gives class ids, whether all logits of an image are finite, and probabilities."""

    def run(images, height, width):
        logits = logits_at(model, images, height, width)
        return *classes_and_finite(logits), ops.max(ops.softmax(logits, axis=-1), axis=-1)

    return compiled_for(model, "labels and confidence", run)


def classes_and_finite(logits):
    """Logits (B, H, W, C) -> class ids (B, H, W), and whether all logits of an image are finite, bool (B,)."""
    return first_maximum(logits), all_finite(logits)


def _labels_of(model):
    return lambda images, height, width: classes_and_finite(logits_at(model, images, height, width))


def compiled_for(model, kind, function):
    """Compile a function of (uint8 images (B, H, W, 3), height, width) that runs a model; sizes are whole numbers.

    It is compiled once for each model and kind and stored with the model, and again after a change of its `Preprocess`
    layer.

    Args:
        kind: what calls that want the same function have in common.
    """
    layer = preprocess_layer(model)
    preprocessing = repr(layer and (layer.mean, layer.scale, layer.size, layer.multiple))
    if getattr(model, "kseg_compiled", (None, None))[0] != preprocessing:
        model.kseg_compiled = preprocessing, {}
    stored = model.kseg_compiled[1]
    if kind not in stored:
        stored[kind] = _compiled(model, function)
    return stored[kind]


def _compiled(model, function):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        size = tf.TensorSpec((), tf.int32)
        images = tf.TensorSpec((None, None, None, 3), tf.uint8)
        return tf.function(function, input_signature=(images, size, size))
    if keras.backend.backend() == "jax":
        return _compiled_on_jax(model, function)
    return function


def _compiled_on_jax(model, function):
    """Compile for each size; the weights are arguments, so that a model in training is always the present one."""
    import jax

    def with_weights(values, images, height, width):
        with keras.StatelessScope(state_mapping=zip(model.variables, values, strict=True)):
            return function(images, height, width)

    compiled = jax.jit(with_weights, static_argnums=(2, 3))
    return lambda images, height, width: compiled([v.value for v in model.variables], images, int(height), int(width))
