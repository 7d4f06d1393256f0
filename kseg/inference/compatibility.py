"""Checks that a model, its data and its settings fit together, made before anything is written."""

import warnings

import keras
import numpy as np

from kseg.inference.finite import first_not_finite
from kseg.inference.label_model import class_count, label_set_of
from kseg.inference.loading import check_shapes
from kseg.inference.model_checks import check_known_classes, classes_error
from kseg.io.errors import InputError, check_divides, warn_user
from kseg.layers.preprocessing import preprocess_layer

MAX_CLASSES = 255  # ids that a label map of 8 bits tells from void


def check_classes(model, label_set, data, outputs=None):
    """Raise ValueError if the model's classes are not those of the label set.

    Only a model that carries its label set may have more outputs than that has classes (`num_outputs`); `outputs`: how
    many it must have, where that is known.
    """
    known = label_set_of(model)
    channels = class_count(model)
    count = len(known["classes"]) if known else channels
    if known:
        check_known_classes(known, label_set, data)
    elif count != label_set.num_classes:
        raise classes_error("The model", count, label_set, data, "Choose the label set that it was trained on")
    if channels < count or outputs not in (None, channels):
        raise InputError(
            f"The model has {channels} outputs, but {outputs or count} are needed for the {count} classes of label set "
            f"{label_set.name}. Build it with that many, or set num_outputs if it needs more outputs than classes."
        )


def warn_of_other_records(model, manifest, data, who="The model"):
    """Warn if a model says that it was trained on other records than those of a manifest."""
    if (label_set_of(model) or {}).get("records", manifest.digest) != manifest.digest:
        warn_user(f"{who} was trained on other records than {data}.")


def check_outputs(model):
    """Raise InputError for a model with more classes than an 8-bit label map can hold beside void (255)."""
    outputs = class_count(model)
    if outputs is not None and outputs > MAX_CLASSES:
        raise InputError(f"A label map of 8 bits holds at most {MAX_CLASSES} classes, but the model gives {outputs}.")


def check_graph(model):
    """Raise ValueError unless what a function gave is a keras.Model from images to logits."""
    inputs = getattr(model, "inputs", None) or ()  # none of a subclassed model, or of one that is not built
    outputs = getattr(model, "outputs", None) or ()
    named = isinstance(getattr(model, "output", None), dict)
    if not isinstance(model, keras.Model) or len(inputs) != 1 or len(outputs) != 1 or named:
        raise InputError(
            "The function must return a functional keras.Model with one input (images) and one output (logits)."
        )
    check_shapes(model)


def check_input(model, size, crop=None):
    """Raise ValueError unless a model takes images of `size`, or crops out of it, both (height, width) in pixels."""
    check_graph(model)
    wanted = tuple(model.inputs[0].shape[1:3])
    layer = preprocess_layer(model)
    multiple = getattr(layer, "multiple", 1)
    if crop:
        if layer is None or wanted != (None, None):
            raise InputError(
                f"{model.name} takes images of {wanted}. To train on crops, a model must be built for free sizes, "
                "(None, None, 3), and begin with kseg.layers.Preprocess, which carries the size of the whole image."
            )
        check_divides(*crop, multiple)
    elif any(a not in (None, b) or b % multiple for a, b in zip(wanted, size, strict=True)):
        raise InputError(
            f"{model.name} takes images of {wanted} (height, width; multiples of {multiple}), but the run's are {size}."
        )


def check_weights(model):
    """Raise ValueError unless a model that is to be trained has weights to train, and all of them are finite."""
    if not model.trainable_variables:
        raise InputError(f"{model.name} has no weights to train. Set trainable=True in the layers that are to learn.")
    if weight := first_not_finite(model.weights):
        raise InputError(f"All weights must be finite before the first step, but {weight} of {model.name} is not.")


def check_output(model, size):
    """Raise ValueError unless a model gives logits of the size of its images; a warning tells of probabilities.

    size: (height, width) in pixels of the images that it is trained on.
    """
    scores = model(keras.ops.convert_to_tensor(noise(size)), training=False)
    given = tuple(scores.shape[1:3])
    if given != tuple(size):
        raise InputError(
            f"{model.name} must give logits of its images' size, {tuple(size)} (height, width), but gives {given}. End "
            "it with a layer such as keras.layers.UpSampling2D, or kseg.layers.UpSampling2D."
        )
    warn_of_probabilities(model, scores)


def noise(size):
    """Return an image of (height, width) to try a model on, uint8 (1, h, w, 3), always the same."""
    return np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)


def warn_of_probabilities(model, scores):
    """Warn, once in a process, if what a model gives, (B, H, W, C), is of a softmax: kseg takes logits."""
    scores = keras.ops.convert_to_numpy(keras.ops.cast(scores, "float32"))
    if (scores >= 0).all() and np.allclose(scores.sum(-1), 1, atol=0.02):  # bfloat16 has three digits
        warnings.warn(
            f"{model.name} ends in a softmax, but kseg's losses and exports take logits and apply the softmax "
            "themselves. Leave it out of the last layer: with it learning is slow and confidences are wrong.",
            stacklevel=1,  # one place for all callers: Python shows a warning once for each place
        )


def check_batch_norm(model, batch_size, crop=None):
    """Raise ValueError if a layer (the pooled branch of ASPP) would normalise over a single value per channel.

    crop: (height, width) trained on where the model is of free size.
    """
    layer = preprocess_layer(model)
    if batch_size == 1 and crop and layer and set(crop) == {layer.multiple}:
        raise InputError(
            f"{model.name} needs a batch of at least 2 images: a crop of {crop[1]}x{crop[0]} is one pixel of its "
            "deepest map, and batch norm would normalise over that alone."
        )
    # All of them, also inside layers: keras-cv's ASPP holds its own.
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    alone = [layer.path for layer in layers if _spatial_shape(layer) in ((1, 1), ())]
    if batch_size == 1 and alone:
        raise InputError(
            f"{model.name} needs a batch of at least 2 images: {alone[0]} normalises over the batch alone."
        )


def _spatial_shape(layer):
    """Height and width of what a layer was built for; unlike `layer.input` also where it is called by another layer."""
    return tuple((layer.get_build_config() or {"input_shape": (None,) * 4})["input_shape"][1:-1])
