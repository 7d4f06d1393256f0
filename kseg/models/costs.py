"""What a Keras model costs, counted: parameters, and the multiply-adds of one image."""

import contextlib
import functools
import math
import unittest.mock

import keras


def _at_outputs(layer, x, y):
    return math.prod(layer.kernel.shape) * math.prod(y.shape[1:-1])


def _at_inputs(layer, x, y):
    return math.prod(layer.kernel.shape) * math.prod(x.shape[1:-1])


COUNTED = {
    keras.layers.Conv2D: _at_outputs,  # a grouped one's kernel has the inputs of one group
    keras.layers.DepthwiseConv2D: _at_outputs,
    keras.layers.Dense: _at_outputs,  # of a map: a 1x1 convolution
    keras.layers.Conv2DTranspose: _at_inputs,  # every input is spread by the whole kernel
}


def multiply_adds(model, input_shape=None):
    """Multiply-adds of one image: convolutions of every kind and dense layers, borders as if inside.

    The model is traced once, so every application counts (a shared layer as often as it is called), also those of
    layers inside layers. Biases, normalisation, activations, pooling and interpolation are left out.

    Args: `model`: keras.Model. `input_shape`: (H, W, C), None for the model's own.
    Returns: int. Raises: ValueError where a size is free and `input_shape` does not give it.
    """
    shape = tuple(input_shape or model.input_shape[1:])
    if None in shape:
        raise ValueError(f"Multiply-adds need a fixed size, got {shape}. Give input_shape=(height, width, channels).")
    counts = []
    with contextlib.ExitStack() as stack:
        for layer_class, count in COUNTED.items():
            patch = unittest.mock.patch.object(layer_class, "call", _counting(layer_class.call, count, counts))
            stack.enter_context(patch)
        _trace(functools.partial(model, training=False), (1, *shape))
    return sum(counts)


def _trace(function, shape):
    """Call a function of an array of float32 with its shape alone: nothing is computed."""
    if keras.backend.backend() == "jax":
        import jax

        jax.eval_shape(function, jax.ShapeDtypeStruct(shape, "float32"))
    else:
        import tensorflow as tf

        tf.function(function).get_concrete_function(tf.TensorSpec(shape))


def _counting(call, count, counts):
    @functools.wraps(call)
    def counted(self, inputs, *arguments, **options):
        outputs = call(self, inputs, *arguments, **options)
        counts.append(count(self, inputs, outputs))
        return outputs

    return counted


def parameters(model):
    """Number of trainable parameters."""
    return sum(math.prod(weight.shape) for weight in model.trainable_variables)


def facts(model):
    """Both, as JSON values."""
    return {"parameters": parameters(model), "multiply_adds": multiply_adds(model)}
