"""What kseg and the naive Keras network share: how TensorFlow is made to run a case, and nothing else."""

import platform

import keras
import tensorflow as tf

from benchmarks.peers import inputs


def versions():
    """What runs here."""
    return {"Python": platform.python_version(), "TensorFlow": tf.__version__, "Keras": keras.__version__}


def gradient_run(function, x, layer=None):
    """A compiled call of `function(x)` forward and backward; `run()` gives y and the gradients of x and weights."""
    x = tf.constant(x)
    shape = function(x).shape  # builds the layers
    weights = layer.trainable_variables if layer else []
    upstream = tf.constant(inputs.maps(shape, seed=1))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, *tape.gradient(y, [x, *weights], output_gradients=upstream)

    return step


def train_run(model, loss, images, labels):
    """One optimizer step (Adam) of a built model; `run()` gives the loss before the step."""
    images, labels = tf.constant(images), tf.constant(labels)
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return value

    return lambda: float(step())


def set_precision(precision):
    """float32, or bfloat16 arithmetic with float32 weights."""
    keras.config.set_dtype_policy({"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision])
