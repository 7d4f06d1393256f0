"""Images, logits and label maps to another size, the same for every model."""

import keras
import numpy as np
from keras import ops


def resized(images, height, width, antialias=False, interpolation="bilinear"):
    """Resize (B, h, w, C) to (B, height, width, C), float32 where it is bilinear; sizes may be tensors of TensorFlow's.

    Pixels are squares whose centres lie at halves: the corners of both sizes meet.
    """
    if keras.backend.backend() == "tensorflow":  # Keras' own takes no sizes that are tensors
        import tensorflow as tf

        return tf.image.resize(images, (height, width), method=interpolation, antialias=antialias)
    return ops.image.resize(images, (height, width), interpolation=interpolation, antialias=antialias)


def at_label_size(values, height, width):
    """Return ids or confidence (B, h, w) as NumPy (B, height, width), by nearest."""
    if tuple(values.shape[1:]) == (height, width):
        return np.asarray(values)
    return np.asarray(resized(values[..., None], height, width, interpolation="nearest"))[..., 0]
