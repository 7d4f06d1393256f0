"""2x2 windows: pooling with positions, its reverse, and both compiled by XLA where TensorFlow trains."""

import functools
from typing import Any

import keras
from keras import ops

from kseg.io.errors import InputError


@keras.saving.register_keras_serializable("kseg")
class MaxPooling2DWithArgmax(keras.layers.Layer):
    """2x2 max pooling with stride 2 that also returns where each maximum was (SegNet, arXiv 1511.00561, 3.1).

    The position is that of the first maximum of the window in row-major order (0..3, uint8), as in
    `tf.nn.max_pool_with_argmax`. Exact in float32, bfloat16 and float16. On TensorFlow with
    `training=True` XLA compiles just this; otherwise it is plain ops.

    Call: x (B, H, W, C). Returns: (pooled, indices), both (B, H/2, W/2, C).
    Raises: ValueError if H or W is odd.
    """

    def build(self, input_shape):
        halved(input_shape)

    def call(self, x: Any, training: bool | None = None) -> tuple[Any, Any]:
        halved(x.shape)
        if compiles(training, x.shape):
            return pool_compiled(x)
        return pool(x)

    def compute_output_spec(self, x, training=None):
        shape = halved(x.shape)
        return keras.KerasTensor(shape, dtype=x.dtype), keras.KerasTensor(shape, dtype="uint8")


@keras.saving.register_keras_serializable("kseg")
class MaxUnpooling2D(keras.layers.Layer):
    """Puts values back where `MaxPooling2DWithArgmax` found maxima, zeros elsewhere (arXiv 1511.00561, 3.1).

    Call: [pooled, indices], both (B, H, W, C), indices uint8 window positions 0..3.
    Returns: (B, 2H, 2W, C) of the dtype of `pooled`. Raises: ValueError if the two shapes differ.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        pooled, indices = inputs
        self.compute_output_shape([pooled.shape, indices.shape])
        if compiles(training, pooled.shape):
            return unpool_compiled(pooled, indices)
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


def _windows(x):
    """(B, H, W, C) -> the four cells of every 2x2 window in row-major order, each (B * H/2, W/2, C)."""
    _, _, width, channels = ops.shape(x)
    rows = ops.reshape(x, (-1, 2, width // 2, 2, channels))
    return rows[:, 0, :, 0], rows[:, 0, :, 1], rows[:, 1, :, 0], rows[:, 1, :, 1]


def pool(x):
    """(B, H, W, C) -> maxima and uint8 window positions, both (B, H/2, W/2, C); the first maximum wins."""
    batch, height, width, channels = ops.shape(x)
    a, b, c, d = _windows(x)
    upper = ops.where(b > a, b, a)
    lower = ops.where(d > c, d, c)  # not maximum: JAX splits its gradient at ties
    pooled = ops.where(lower > upper, lower, upper)
    zero, one, two, three = (ops.cast(k, "int32") for k in range(4))  # TFLite cannot select uint8
    indices = ops.where(a == pooled, zero, ops.where(b == pooled, one, ops.where(c == pooled, two, three)))
    half = (batch, height // 2, width // 2, channels)  # an odd size cannot take this shape
    return ops.reshape(pooled, half), ops.reshape(ops.cast(indices, "uint8"), half)


def unpool(pooled, indices):
    """Maps (B, H, W, C) to (B, 2H, 2W, C): each value at its window position, zeros elsewhere."""
    batch, height, width, channels = ops.shape(pooled)
    values = ops.reshape(pooled, (-1, 1, width, 1, channels))
    places = ops.reshape(ops.cast(indices, "int32"), (-1, 1, width, 1, channels))  # LiteRT cannot compare uint8
    cells = ops.reshape(ops.arange(4, dtype="int32"), (2, 1, 2, 1))
    spread = ops.where(places == cells, values, ops.zeros((), dtype=values.dtype))  # (B * H, 2, W, 2, C)
    return ops.reshape(spread, (batch, 2 * height, 2 * width, channels))


def _select(x, indices):
    """Picks from each 2x2 window of (B, 2H, 2W, C) the value at its position: the transpose of `unpool`."""
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


def pool_compiled(x):
    """`pool` as an XLA island inside TensorFlow, gradient included."""
    import tensorflow as tf

    @tf.custom_gradient
    def run(x):
        pooled, indices = _run_compiled(pool, x)
        return (pooled, indices), lambda upstream, _: _run_compiled(unpool, upstream, indices)

    return run(x)


def unpool_compiled(pooled, indices):
    """`unpool` as an XLA island inside TensorFlow, gradient included."""
    import tensorflow as tf

    @tf.custom_gradient
    def run(pooled, indices):
        return _run_compiled(unpool, pooled, indices), lambda up: (_run_compiled(_select, up, indices), None)

    return run(pooled, indices)


def compiles(training, shape):
    """True where the pair runs as an XLA island: TensorFlow, training, sizes known; else plain ops."""
    return keras.backend.backend() == "tensorflow" and training is True and None not in tuple(shape)[1:]


def halved(shape):
    """The shape after pooling; ValueError if height or width is odd."""
    batch, height, width, channels = shape
    if (height or 0) % 2 or (width or 0) % 2:
        got = f"{height or '?'}x{width or '?'}"
        even = "x".join(str(size + size % 2) if size else "?" for size in (height, width))
        raise InputError(f"Height and width must be even for 2x2 pooling, got {got}. Pad or crop to {even}.")
    return (batch, height and height // 2, width and width // 2, channels)
