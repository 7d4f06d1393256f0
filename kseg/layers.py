"""What Keras lacks: pooling with indices, fused batch norm, L2 normalisation with a scale, bilinear kernels, and input
normalisation that describes itself.

All of it is `keras.ops`; training on TensorFlow takes faster paths (XLA islands, the fused kernel).
"""

import json
import numbers

import keras
from keras import ops

from kseg import windows
from kseg.errors import InputError, check_whole


@keras.saving.register_keras_serializable("kseg")
class MaxPooling2DWithArgmax(keras.layers.Layer):
    """2x2 max pooling with stride 2 that also returns where each maximum was (SegNet, arXiv 1511.00561, 3.1).

    The position is that of the first maximum of the window in row-major order (0..3, uint8), as in
    `tf.nn.max_pool_with_argmax`. Exact in float32, bfloat16 and float16. On TensorFlow with
    `training=True` XLA compiles just this; otherwise it is plain ops.

    Call: x (B, H, W, C). Returns: (pooled, indices), both (B, H/2, W/2, C).
    Raises: ValueError where H or W is odd.
    """

    def build(self, input_shape):
        windows.halved(input_shape)

    def call(self, x, training=None):
        windows.halved(x.shape)
        return windows.pool_compiled(x) if windows.compiles(training, x.shape) else windows.pool(x)

    def compute_output_spec(self, x, training=None):
        shape = windows.halved(x.shape)
        return keras.KerasTensor(shape, dtype=x.dtype), keras.KerasTensor(shape, dtype="uint8")


@keras.saving.register_keras_serializable("kseg")
class MaxUnpooling2D(keras.layers.Layer):
    """Puts values back where `MaxPooling2DWithArgmax` found maxima, zeros elsewhere (arXiv 1511.00561, 3.1).

    Call: [pooled, indices], both (B, H, W, C), indices uint8 window positions 0..3.
    Returns: (B, 2H, 2W, C) of the dtype of `pooled`. Raises: ValueError where the two shapes differ.
    """

    def call(self, inputs, training=None):
        pooled, indices = inputs
        self.compute_output_shape([pooled.shape, indices.shape])
        unpool = windows.unpool_compiled if windows.compiles(training, pooled.shape) else windows.unpool
        return unpool(pooled, indices)

    def compute_output_shape(self, input_shape):
        pooled, indices = (tuple(shape) for shape in input_shape)
        pairs = zip(pooled, indices, strict=True)
        if len(pooled) != len(indices) or any(a != b for a, b in pairs if None not in (a, b)):
            raise InputError(
                f"MaxUnpooling2D needs maps and indices of one shape, got {pooled} and {indices}. "
                "Unpool with the indices of the pooling that made maps of this size."
            )
        batch, height, width, channels = pooled
        return (batch, height and 2 * height, width and 2 * width, channels)

    def compute_output_spec(self, inputs, training=None):
        pooled, indices = inputs
        shape = self.compute_output_shape([pooled.shape, indices.shape])
        return keras.KerasTensor(shape, dtype=pooled.dtype)


@keras.saving.register_keras_serializable("kseg")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation on TensorFlow's fused kernel (Ioffe and Szegedy 2015, arXiv 1502.03167).

    Arguments, weights and saved names of `keras.layers.BatchNormalization`, but momentum .9 and
    epsilon 1e-5. Fused on TensorFlow when training, rank 4, channels last, not synchronized and without
    a mask; else as in Keras. The moving variance is of the biased kind, as in Keras.

    Call: (B, H, W, C), any float dtype. Returns: the same shape in the compute dtype.
    Raises: ValueError where training would normalise over one value per channel, which gives zeros.
    """

    def __init__(self, axis=-1, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable) or self.synchronized or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        if all(inputs.shape[axis] == 1 for axis in self._reduction_axes):
            raise InputError(
                f"Layer '{self.name}' would normalise over one value per channel, got a batch of shape "
                f"{tuple(inputs.shape)}. Train with a batch of at least 2 images per device."
            )
        return self._fused(inputs) if self._can_fuse(inputs) else super().call(inputs, training=training)

    def _can_fuse(self, inputs):
        return (
            keras.backend.backend() == "tensorflow"
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and not self.renorm
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "bfloat16", "float16")
            and self.variable_dtype == "float32"
        )

    def _fused(self, inputs):
        import tensorflow as tf

        shape = ops.shape(inputs)
        count = ops.cast(shape[0] * shape[1] * shape[2], "float32")
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.convert_to_tensor(self.gamma) if self.scale else tf.ones(shape[3]),
            offset=ops.convert_to_tensor(self.beta) if self.center else tf.zeros(shape[3]),
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            exponential_avg_factor=1.0,
            data_format="NHWC",
            is_training=True,
        )
        # The kernel returns the variance over n - 1, Keras keeps that over n; with n = 1 it is 0.
        variance = tf.where(count > 1, variance * ((count - 1) / count), tf.zeros_like(variance))
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + tf.stop_gradient(value) * (1.0 - self.momentum))
        return ops.cast(outputs, self.compute_dtype)


@keras.saving.register_keras_serializable("kseg")
class ScaledL2Normalization(keras.layers.Layer):
    """Gives every pixel's vector the length 1, then a learned scale per channel (arXiv 1506.04579, section 3.3).

    Computed in float32: y = scale * x / sqrt(sum over channels of x^2 + epsilon). Deviation: the epsilon, under which a
    vector of zeros, as ReLU makes them, gives zeros and a gradient of scale / sqrt(epsilon) and no nan.

    Args: `scale`: initial value for every channel. `epsilon`: positive, in the units of x squared.
    Call: (..., C), any float dtype. Returns: the same shape in the layer's compute dtype.
    Raises: ValueError where epsilon is not positive.
    """

    def __init__(self, scale=10.0, epsilon=1e-6, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if epsilon <= 0:
            raise InputError(f"epsilon must be positive, got {epsilon}. Try 1e-6.")
        self.scale, self.epsilon = float(scale), float(epsilon)

    def build(self, input_shape):
        initial = keras.initializers.Constant(self.scale)
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer=initial)

    def call(self, x):
        x = ops.cast(x, "float32")
        squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
        y = x * ops.rsqrt(squares + self.epsilon) * ops.cast(self.gamma, "float32")
        return ops.cast(y, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "epsilon": self.epsilon}


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


def check_divides(height, width, multiple):
    """Raise ValueError about images of a size that a model cannot take; None is a size that is not known."""
    if not (height or 0) % multiple and not (width or 0) % multiple:
        return
    fit = "x".join(str(max(round(size / multiple), 1) * multiple) if size else "?" for size in (height, width))
    raise InputError(
        f"Height and width must be multiples of {multiple}, got {height or '?'}x{width or '?'}. Pad or crop to {fit}."
    )


@keras.saving.register_keras_serializable("kseg")
class Preprocess(keras.layers.Layer):
    """Normalises RGB 0..255 inside the model, and carries what a saved model must say about itself.

    Args: `mean`, `scale`: RGB in units of 0..255: output = (x - mean) / scale, computed in float32.
        `multiple`: height and width must divide by it. `size`: (height, width) it works at, None if free.
        `label_set`: dict of "name", "classes", "palette" (JSON values), or None. All can be set
        afterwards and are saved with the model.
    Call: uint8 or float (B, H, W, 3), RGB. Returns: the same shape in the layer's compute dtype.
    Raises: ValueError where mean or scale are not three numbers or a scale is not positive; for images whose height or
        width is known and does not divide.
    """

    def __init__(self, mean, scale, multiple=1, label_set=None, size=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        for values in (mean, scale):
            if not isinstance(values, (list, tuple)) or not all(isinstance(value, numbers.Real) for value in values):
                raise InputError(f"Preprocess needs 3 means and 3 positive scales (RGB), got {mean!r} and {scale!r}.")
        self.mean = tuple(float(value) for value in mean)
        self.scale = tuple(float(value) for value in scale)
        if len(self.mean) != 3 or len(self.scale) != 3 or min(self.scale) <= 0:
            raise InputError(f"Preprocess needs 3 means and 3 positive scales (RGB), got {self.mean} and {self.scale}.")
        check_whole("multiple", multiple, 1)
        self.multiple = int(multiple)
        if size is not None and not (isinstance(size, (list, tuple)) and len(size) == 2):
            raise InputError(f"size must be (height, width) in pixels, or None, got {size!r}.")
        for value in size or ():
            check_whole("size", value, 1)
        self.size = None if size is None else tuple(int(value) for value in size)
        self.label_set = label_set

    @property
    def label_set(self):
        return json.loads(self._label_set)

    @label_set.setter
    def label_set(self, value):
        self._label_set = json.dumps(value)  # as text, so that Keras does not wrap the dict in its tracking types

    def call(self, x):
        sizes = (size if isinstance(size, int) else None for size in x.shape[1:3])  # JAX traces free ones as symbols
        check_divides(*sizes, self.multiple)
        x = ops.cast(x, "float32")
        mean, scale = (ops.convert_to_tensor(values, dtype="float32") for values in (self.mean, self.scale))
        return ops.cast((x - mean) / scale, self.compute_dtype)

    def get_config(self):
        own = {name: getattr(self, name) for name in ("mean", "scale", "multiple", "label_set", "size")}
        return {**super().get_config(), **own}


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
