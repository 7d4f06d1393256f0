"""What Keras lacks: pooling with indices, fused batch norm, input normalisation that describes itself.

All of it is `keras.ops`; training on TensorFlow takes faster paths (XLA islands, the fused kernel).
"""

import functools
import json

import keras
from keras import ops


def _windows(x):
    """(B, H, W, C) -> the four cells of every 2x2 window in row-major order, each (B * H/2, W/2, C)."""
    _, _, width, channels = ops.shape(x)
    rows = ops.reshape(x, (-1, 2, width // 2, 2, channels))
    return rows[:, 0, :, 0], rows[:, 0, :, 1], rows[:, 1, :, 0], rows[:, 1, :, 1]


def _pool(x):
    """(B, H, W, C) -> maxima and uint8 window positions, both (B, H/2, W/2, C); the first maximum wins."""
    batch, height, width, channels = ops.shape(x)
    a, b, c, d = _windows(x)
    upper, lower = ops.where(b > a, b, a), ops.where(d > c, d, c)  # not maximum: JAX splits its gradient at ties
    pooled = ops.where(lower > upper, lower, upper)
    zero, one, two, three = (ops.cast(k, "int32") for k in range(4))  # TFLite cannot select uint8
    indices = ops.where(a == pooled, zero, ops.where(b == pooled, one, ops.where(c == pooled, two, three)))
    half = (batch, height // 2, width // 2, channels)  # an odd size cannot take this shape
    return ops.reshape(pooled, half), ops.reshape(ops.cast(indices, "uint8"), half)


def _unpool(pooled, indices):
    """Maps (B, H, W, C) to (B, 2H, 2W, C): each value at its window position, zeros elsewhere."""
    batch, height, width, channels = ops.shape(pooled)
    values = ops.reshape(pooled, (-1, 1, width, 1, channels))
    places = ops.reshape(indices, (-1, 1, width, 1, channels))
    cells = ops.reshape(ops.cast(ops.arange(4), "uint8"), (2, 1, 2, 1))
    spread = ops.where(places == cells, values, ops.zeros((), dtype=values.dtype))  # (B * H, 2, W, 2, C)
    return ops.reshape(spread, (batch, 2 * height, 2 * width, channels))


def _select(x, indices):
    """Picks from each 2x2 window of (B, 2H, 2W, C) the value at its position: the transpose of `_unpool`."""
    a, b, c, d = _windows(x)
    places = ops.reshape(indices, ops.shape(a))
    zero, two = (ops.cast(k, places.dtype) for k in (0, 2))
    values = ops.where(places < two, ops.where(places == zero, a, b), ops.where(places == two, c, d))
    return ops.reshape(values, ops.shape(indices))


@functools.cache
def _compiled(function, *specs):
    """One XLA island per function, shapes and dtypes: traced once each, so no retracing to warn of."""
    import tensorflow as tf

    return tf.function(lambda *tensors: function(*tensors), autograph=False, jit_compile=True)


def _run_compiled(function, *tensors):
    return _compiled(function, *((tuple(tensor.shape), tensor.dtype) for tensor in tensors))(*tensors)


def _pool_compiled(x):
    import tensorflow as tf

    @tf.custom_gradient
    def pool(x):
        pooled, indices = _run_compiled(_pool, x)
        return (pooled, indices), lambda upstream, _: _run_compiled(_unpool, upstream, indices)

    return pool(x)


def _unpool_compiled(pooled, indices):
    import tensorflow as tf

    @tf.custom_gradient
    def unpool(pooled, indices):
        return _run_compiled(_unpool, pooled, indices), lambda up: (_run_compiled(_select, up, indices), None)

    return unpool(pooled, indices)


def _compiles(training, shape):
    """True where the pair runs as an XLA island: TensorFlow, training, sizes known; else plain ops."""
    return keras.backend.backend() == "tensorflow" and training is True and None not in tuple(shape)[1:]


def _halved(shape):
    batch, height, width, channels = shape
    if (height or 0) % 2 or (width or 0) % 2:
        got = f"{height or '?'}x{width or '?'}"
        even = "x".join(str(size + size % 2) if size else "?" for size in (height, width))
        raise ValueError(f"Height and width must be even for 2x2 pooling, got {got}. Pad or crop to {even}.")
    return (batch, height and height // 2, width and width // 2, channels)


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
        _halved(input_shape)

    def call(self, x, training=None):
        _halved(x.shape)
        return _pool_compiled(x) if _compiles(training, x.shape) else _pool(x)

    def compute_output_spec(self, x, training=None):
        shape = _halved(x.shape)
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
        unpool = _unpool_compiled if _compiles(training, pooled.shape) else _unpool
        return unpool(pooled, indices)

    def compute_output_shape(self, input_shape):
        pooled, indices = (tuple(shape) for shape in input_shape)
        pairs = zip(pooled, indices, strict=True)
        if len(pooled) != len(indices) or any(a != b for a, b in pairs if None not in (a, b)):
            raise ValueError(
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
            raise ValueError(
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
class Preprocess(keras.layers.Layer):
    """Normalises RGB 0..255 inside the model, and carries what a saved model must say about itself.

    Args: `mean`, `scale`: RGB in units of 0..255: output = (x - mean) / scale, computed in float32.
        `multiple`: height and width must divide by it. `size`: (height, width) it works at, None if free.
        `label_set`: dict of "name", "classes", "palette" (JSON values), or None. All can be set
        afterwards and are saved with the model.
    Call: uint8 or float (B, H, W, 3), RGB. Returns: the same shape in the layer's compute dtype.
    Raises: ValueError where mean or scale are not three numbers or a scale is not positive.
    """

    def __init__(self, mean, scale, multiple=1, label_set=None, size=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.mean = tuple(float(value) for value in mean)
        self.scale = tuple(float(value) for value in scale)
        if len(self.mean) != 3 or len(self.scale) != 3 or min(self.scale) <= 0:
            raise ValueError(f"Preprocess needs 3 means and 3 positive scales (RGB), got {self.mean} and {self.scale}.")
        self.multiple = int(multiple)
        self.size = None if size is None else tuple(int(value) for value in size)
        self.label_set = label_set

    @property
    def label_set(self):
        return json.loads(self._label_set)

    @label_set.setter
    def label_set(self, value):
        self._label_set = json.dumps(value)  # as text, so that Keras does not wrap the dict in its tracking types

    def call(self, x):
        x = ops.cast(x, "float32")
        mean, scale = (ops.convert_to_tensor(values, dtype="float32") for values in (self.mean, self.scale))
        return ops.cast((x - mean) / scale, self.compute_dtype)

    def get_config(self):
        own = {name: getattr(self, name) for name in ("mean", "scale", "multiple", "label_set", "size")}
        return {**super().get_config(), **own}
