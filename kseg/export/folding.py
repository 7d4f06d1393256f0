"""What a graph for other runtimes has instead of a model's layers, while it is made; the model itself stays as it is.

Batch norms are folded into the convolutions before them, and convolutions with a group for each channel are depthwise.
For TensorFlow, upsampling by the nearest neighbour and the 3x3 convolution behind it are one transposed convolution,
and wide convolutions are several narrow ones.
"""

import contextlib
import functools
import unittest.mock

import keras
import numpy as np

from kseg.layers.pooling import MaxPooling2DWithArgmax


def _convolved(layer, inputs, kernel):
    if _is_depthwise(layer):
        kernel_size, channels = kernel.shape[:2], inputs.shape[-1]
        return _convolved_by_depth(layer, inputs, keras.ops.reshape(kernel, (*kernel_size, channels, -1)))
    return layer.convolution_op(inputs, kernel)


def _is_depthwise(layer):
    """Whether a convolution has a group for each channel, as ConvNeXt's.

    Keras compiles it by XLA, which no converter can read. A DepthwiseConv2D does the same.
    """
    return isinstance(layer, keras.layers.Conv2D) and layer.groups > 1 and layer.kernel.shape[2] == 1


def _convolved_by_depth(layer, inputs, kernel):
    return keras.ops.depthwise_conv(
        inputs,
        kernel,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )


def _as_depthwise(layer, inputs):
    outputs = _convolved(layer, inputs, keras.ops.cast(layer.kernel, inputs.dtype))
    bias = keras.ops.cast(layer.bias, inputs.dtype) if layer.use_bias else 0
    return layer.activation(outputs + bias)


def _doubled(layer, inputs, kernel):
    return keras.ops.conv_transpose(inputs, kernel, 2, "same", data_format="channels_last")


def _convolved_back(layer, inputs, kernel):
    return keras.ops.conv_transpose(
        inputs,
        kernel,
        strides=list(layer.strides),
        padding=layer.padding,
        output_padding=layer.output_padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )


# What applies a kernel as the layer does, and the shape by which a factor for each output channel meets the kernel.
_KINDS = {
    keras.layers.Conv2D: (_convolved, lambda shape: (1, 1, 1, shape[3])),
    keras.layers.DepthwiseConv2D: (_convolved_by_depth, lambda shape: (1, 1, *shape[2:])),
    keras.layers.Conv2DTranspose: (_convolved_back, lambda shape: (1, 1, shape[2], 1)),
}
_NORM = keras.layers.BatchNormalization
WIDE, PART = 256, 64  # output channels from which on TensorFlow gets a kernel in parts, and of a part


class Folding:
    """y = norm(convolution(x)) computed as one convolution of another kernel and bias (equal to rounding).

    A norm is folded if it alone takes what a convolution without activation gives. Every application counts by itself:
    a kernel that several norms follow (the steps of a recurrent convolution) becomes one kernel for each. `find` looks
    at a graph of the model; within `applied` graphs are made without those norms, by the same calls in the same order.

    Other norms stay: after a sum, or where what the convolution gives is used twice. So do those before a max pooling
    that gives positions: rounding decides between nearly equal values of a window, and another position moves a patch
    of labels.

    For TensorFlow, `applied` does two more things, both equal to rounding. They make TensorFlow faster, but not the
    other runtimes (benchmarks/RESULTS.md).

    - A 3x3 convolution behind an upsampling by the nearest neighbour, as in U-Net's decoder, multiplies every pixel of
      the small map up to four times, by different weights. A transposed 4x4 convolution of stride 2, whose kernel has
      the sums of these weights, gives the same map with 4/9 of the multiply-adds.
    - TensorFlow keeps a kernel's output channels side by side. A convolution of one image reads a block of them at a
      time, and from 256 channels on, the steps between its reads are so wide that the cache loses what it holds. So a
      kernel of that many channels is kept in parts of 64.
    """

    def __init__(self, tensorflow=False):
        self._tensorflow = tensorflow
        self._norms = {}  # number of a convolution's call -> the norm
        self._folded = {}  # (convolution, norm, whether it doubles, is split) -> [(kernel, bias)], of its parts
        self._first = 0  # number of the first convolution that no pooling with positions comes after
        self.norms = 0  # of the model's graph, folded or not

    @property
    def count(self):
        """How many norms are folded."""
        return len(self._norms)

    def find(self, function, *specs):
        """Find the norms to fold. function: runs the model. specs: TensorSpecs of its arguments."""
        import tensorflow as tf

        made = {}
        taken = []
        count = 0

        def convolve(call, layer, inputs):
            nonlocal count
            outputs = call(layer, inputs)
            number = count
            count += 1
            if layer.activation in (None, keras.activations.linear) and layer.data_format == "channels_last":
                made[id(outputs)] = number, outputs, len(outputs.consumers())
            return outputs

        def normalise(call, layer, inputs):
            outputs = call(layer, inputs)
            self.norms += 1
            number, same, before = made.get(id(inputs), (None, None, None))
            if number is not None and before == 0 and layer.axis in (-1, 3):
                taken.append((number, layer, same, len(same.consumers())))
            return outputs

        def pool(call, layer, inputs):
            self._first = count
            return call(layer, inputs)

        with _replaced({**dict.fromkeys(_KINDS, convolve), _NORM: normalise, MaxPooling2DWithArgmax: pool}):
            tf.function(function, autograph=False).get_concrete_function(*specs)
        for number, layer, outputs, consumers in taken:
            if number >= self._first and len(outputs.consumers()) == consumers and number not in self._norms:
                self._norms[number] = layer

    @contextlib.contextmanager
    def applied(self):
        """A block in which one graph is made, with the norms folded."""
        calls = iter(range(10**9))
        without_norm = {}
        doubled = {}  # id of a map that the nearest neighbour doubled -> that map, and the one before it

        def double(call, layer, inputs):
            outputs = call(layer, inputs)
            if _doubles(layer):
                doubled[id(outputs)] = outputs, inputs
            return outputs

        def convolve(call, layer, inputs):
            number = next(calls)
            norm = self._norms.get(number)
            changes = self._tensorflow and number >= self._first and layer.compute_dtype == "float32"
            doubles = changes and id(inputs) in doubled and _is_plain_3x3(layer)
            if norm is None and not doubles and not (changes and _is_wide(layer)):
                return _as_depthwise(layer, inputs) if _is_depthwise(layer) else call(layer, inputs)
            if doubles:
                convolved = _doubled
                inputs = doubled[id(inputs)][1]
            else:
                convolved = _KINDS[_kind_of(layer)][0]
            weights = self._weights(layer, norm, doubles, split=changes and _is_wide(layer))
            parts = [convolved(layer, inputs, kernel) + bias for kernel, bias in weights]
            outputs = parts[0] if len(parts) == 1 else keras.ops.concatenate(parts, axis=-1)
            if norm is None:
                return layer.activation(outputs)
            without_norm[id(outputs)] = outputs
            return outputs

        def normalise(call, layer, inputs):
            if id(inputs) in without_norm:
                return inputs
            return call(layer, inputs)

        with _replaced({**dict.fromkeys(_KINDS, convolve), _NORM: normalise, keras.layers.UpSampling2D: double}):
            yield

    def _weights(self, layer, norm, doubles, split):
        key = id(layer), id(norm), doubles, split
        if key not in self._folded:
            import tensorflow as tf

            with tf.init_scope():
                kernel, bias = folded_weights(layer, norm)
                parts = [(kernel, bias)]
                if doubles:
                    parts = [(doubling_kernel(kernel), bias)]
                elif split:
                    ends = range(PART, len(bias), PART)
                    parts = zip(np.split(kernel, ends, axis=-1), np.split(bias, ends), strict=True)
                self._folded[key] = [[tf.Variable(value, trainable=False) for value in part] for part in parts]
        return self._folded[key]


def folded_weights(layer, norm):
    """Return kernel and bias, NumPy float32, of the convolution that does what one and its norm do; norm: or None."""
    value = keras.ops.convert_to_numpy
    if norm is None:
        kernel = value(layer.kernel)
        return kernel, value(layer.bias) if layer.use_bias else np.zeros(kernel.shape[-1], kernel.dtype)
    factor = 1 / np.sqrt(value(norm.moving_variance).astype(np.float64) + norm.epsilon)
    if norm.scale:
        factor = factor * value(norm.gamma)
    bias = -value(norm.moving_mean).astype(np.float64)
    if layer.use_bias:
        bias = bias + value(layer.bias)
    bias = bias * factor
    if norm.center:
        bias = bias + value(norm.beta)
    kernel = value(layer.kernel).astype(np.float64)
    kernel = kernel * factor.reshape(_KINDS[_kind_of(layer)][1](kernel.shape))
    return kernel.astype(np.float32), bias.astype(np.float32)


def doubling_kernel(kernel):
    """Return the kernel (4, 4, O, I) of the transposed convolution of stride 2 that does what a 3x3 convolution does.

    Args: `kernel`: (3, 3, I, O), NumPy, of the convolution, whose input is a map that the nearest neighbour doubled.
    """
    found = np.zeros((4, 4, *kernel.shape[:1:-1]))
    for row, column, down, right in np.ndindex(3, 3, 2, 2):  # of the kernel; in the square that a pixel becomes
        found[2 + down - row, 2 + right - column] += kernel[row, column].T
    return found.astype(kernel.dtype)


def _doubles(layer):
    """Whether an upsampling makes a square of four pixels of each."""
    return (layer.interpolation, layer.size, layer.data_format) == ("nearest", (2, 2), "channels_last")


def _is_plain_3x3(layer):
    """Whether a convolution is what `doubling_kernel` knows."""
    wanted = {"kernel_size": (3, 3), "strides": (1, 1), "dilation_rate": (1, 1), "padding": "same"}
    return _is_plain(layer) and all(getattr(layer, name) == value for name, value in wanted.items())


def _is_wide(layer):
    """Whether TensorFlow is faster with a convolution's kernel in parts."""
    return _is_plain(layer) and layer.kernel_size != (1, 1) and layer.filters >= WIDE


def _is_plain(layer):
    return type(layer) is keras.layers.Conv2D and layer.groups == 1 and layer.data_format == "channels_last"


def _kind_of(layer):
    return next(kind for kind in _KINDS if isinstance(layer, kind))


@contextlib.contextmanager
def _replaced(functions):
    """A block in which the calls of layers go through {class: function (call, layer, inputs) -> outputs}."""

    def through(function, call):
        @functools.wraps(call)
        def replaced(self, inputs, *arguments, **options):
            return function(lambda layer, x: call(layer, x, *arguments, **options), self, inputs)

        return replaced

    with contextlib.ExitStack() as stack:
        for kind, function in functions.items():
            patch = unittest.mock.patch.object(kind, "call", through(function, kind.call))
            stack.enter_context(patch)
        yield
