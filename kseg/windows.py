"""2x2 windows: pooling with positions, its reverse, and both compiled by XLA where TensorFlow trains."""

import functools

import keras
from keras import ops

from kseg.errors import InputError


def _windows(x):
    """(B, H, W, C) -> the four cells of every 2x2 window in row-major order, each (B * H/2, W/2, C)."""
    _, _, width, channels = ops.shape(x)
    rows = ops.reshape(x, (-1, 2, width // 2, 2, channels))
    return rows[:, 0, :, 0], rows[:, 0, :, 1], rows[:, 1, :, 0], rows[:, 1, :, 1]


def pool(x):
    """(B, H, W, C) -> maxima and uint8 window positions, both (B, H/2, W/2, C); the first maximum wins."""
    batch, height, width, channels = ops.shape(x)
    a, b, c, d = _windows(x)
    upper, lower = ops.where(b > a, b, a), ops.where(d > c, d, c)  # not maximum: JAX splits its gradient at ties
    pooled = ops.where(lower > upper, lower, upper)
    zero, one, two, three = (ops.cast(k, "int32") for k in range(4))  # TFLite cannot select uint8
    indices = ops.where(a == pooled, zero, ops.where(b == pooled, one, ops.where(c == pooled, two, three)))
    half = (batch, height // 2, width // 2, channels)  # an odd size cannot take this shape
    return ops.reshape(pooled, half), ops.reshape(ops.cast(indices, "uint8"), half)


def unpool(pooled, indices):
    """Maps (B, H, W, C) to (B, 2H, 2W, C): each value at its window position, zeros elsewhere."""
    batch, height, width, channels = ops.shape(pooled)
    values = ops.reshape(pooled, (-1, 1, width, 1, channels))
    places = ops.reshape(indices, (-1, 1, width, 1, channels))
    cells = ops.reshape(ops.cast(ops.arange(4), "uint8"), (2, 1, 2, 1))
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
    """The shape after pooling; ValueError where height or width is odd."""
    batch, height, width, channels = shape
    if (height or 0) % 2 or (width or 0) % 2:
        got = f"{height or '?'}x{width or '?'}"
        even = "x".join(str(size + size % 2) if size else "?" for size in (height, width))
        raise InputError(f"Height and width must be even for 2x2 pooling, got {got}. Pad or crop to {even}.")
    return (batch, height and height // 2, width and width // 2, channels)
