"""Upsampling to sizes that are known only when the graph runs, and bilinear interpolation as a kernel."""

import keras
from keras import ops

from kseg.io.errors import InputError


@keras.saving.register_keras_serializable("kseg")
class BilinearInitializer(keras.initializers.Initializer):
    """Makes a transposed convolution of stride k / 2 upsample every channel bilinearly (arXiv 1411.4038, section 3.3).

    Call: shape (k, k, C, C), k even. Returns: the kernel, 0 between different channels.
    Raises: ValueError for another shape.
    """

    def __call__(self, shape, dtype=None):
        height, width, filters, channels = shape
        if height != width or height % 2 or filters != channels:
            raise InputError(f"A bilinear kernel has shape (k, k, C, C) with even k, got {tuple(shape)}.")
        half = height / 2
        line = 1 - ops.abs(ops.arange(height, dtype="float32") + 0.5 - half) / half  # k = 4: 1/4, 3/4, 3/4, 1/4
        window = ops.reshape(ops.outer(line, line), (height, width, 1, 1))
        return ops.cast(window * ops.eye(channels), dtype or keras.config.floatx())


@keras.saving.register_keras_serializable("kseg")
class UpSampling2D(keras.layers.UpSampling2D):
    """Keras' `UpSampling2D` that on TensorFlow also interpolates maps whose size is known only when the graph runs.

    Keras' own compares sizes in Python: a model of free size would fail in `predict` and in a SavedModel.
    Arguments, call and result as `keras.layers.UpSampling2D`.
    """

    def call(self, inputs):
        if keras.backend.backend() != "tensorflow" or self.interpolation == "nearest":
            return super().call(inputs)
        import tensorflow as tf

        _, height, width, _ = ops.shape(inputs)
        size = (height * self.size[0], width * self.size[1])
        return ops.cast(tf.image.resize(inputs, size, self.interpolation), self.compute_dtype)
