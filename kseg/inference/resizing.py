"""Images, logits and label maps to another size, the same for every model."""

import keras
from keras import ops


def resized(images, height, width, antialias=False, interpolation="bilinear"):
    """Resize (B, h, w, C) to (B, height, width, C), float32 where it is bilinear; sizes may be tensors of TensorFlow's.

    Pixels are squares whose centres lie at halves: the corners of both sizes meet.
    """
    if keras.backend.backend() == "tensorflow":  # Keras' own takes no sizes that are tensors
        import tensorflow as tf

        return tf.image.resize(images, (height, width), method=interpolation, antialias=antialias)
    return ops.image.resize(images, (height, width), interpolation=interpolation, antialias=antialias)
