"""The logits of a model for images of any size, at any size: what predictions, scores and exports share."""

import keras
from keras import ops

from kseg.data.augmentation.apply_numpy import PADDING
from kseg.inference.resizing import resized
from kseg.layers.preprocessing import preprocess_layer


def logits_at(model, images, height, width, scale=1.0, resize=resized):
    """Run a model on images of any size and give logits at a size.

    A model of fixed size gets the image resized to it (bilinear, antialiased). A model of free size that was trained
    at a size of the settings (or on crops out of it) gets the image resized to that, any other at its own; then padded
    with the mean pixel (as in training) to the multiple it needs. Any keras.Model that gives logits will do.

    Args:
        model: keras.Model giving logits (B, h, w, C). images: uint8 or float (B, H, W, 3), RGB 0..255.
        height, width: of the logits wanted. scale: a factor by which a model of free size gets the image larger.
        resize: a function as `resized`, for where its operations must be others.
    Returns:
        float32 (B, height, width, C), resized bilinearly where the model's own differ.
    """
    images = ops.cast(images, "float32")
    rows, columns = model.input_shape[1:3]
    if rows and columns:
        logits = ops.cast(model(resize(images, rows, columns, antialias=True), training=False), "float32")
    else:
        layer = preprocess_layer(model)
        multiple = layer.multiple if layer else 1
        if layer and layer.size:
            images = resize(images, *(scaled(side, scale) for side in layer.size), antialias=True)
        elif scale != 1:
            images = resize(images, *(scaled(side, scale) for side in ops.shape(images)[1:3]), antialias=True)
        image_height, image_width = ops.shape(images)[1:3]
        # Not -n % multiple, whose sign converters to other formats change.
        below, right = ((multiple - side % multiple) % multiple for side in (image_height, image_width))
        shift = ops.convert_to_tensor(PADDING, dtype="float32")  # whole numbers: whole pixel values come back exact
        padded = ops.pad(images - shift, [(0, 0), (0, below), (0, right), (0, 0)]) + shift
        logits = ops.cast(model(padded, training=False), "float32")[:, :image_height, :image_width]
    return resize(logits, height, width)


def scaled(side, scale):
    """Return a side in pixels times a factor, whole and at least 1; the side may be a tensor."""
    if isinstance(side, int):
        return max(1, round(side * scale))
    return ops.maximum(1, ops.cast(ops.round(ops.cast(side, "float32") * scale), "int32"))


def first_maximum(logits):
    """Class of the largest logit (B, H, W, C) -> (B, H, W), the first of equals, in ops that every exporter knows."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.argmax(logits, axis=-1, output_type=tf.int32)
    return ops.argmax(logits, axis=-1)
