"""kseg.training.trainers.remat: the same step as without, from fewer maps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg import layers
from kseg.training.trainers import remat


def build():
    """Batch norm, dropout, pooling positions (uint8) and a skip that pass from segment to segment, a layer twice."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    x = skip = keras.layers.Conv2D(4, 3, padding="same", name="first")(image)
    shared = keras.layers.Conv2D(4, 3, padding="same", name="shared")
    norm = layers.BatchNormalization(name="norm")
    for _ in range(2):
        x = keras.layers.ReLU()(norm(shared(x)))
    x, indices = layers.MaxPooling2DWithArgmax()(x)
    x = keras.layers.Dropout(0.5, seed=3)(layers.BatchNormalization()(keras.layers.Conv2D(4, 1)(x)))
    x = keras.layers.Add()([layers.MaxUnpooling2D()([x, indices]), skip])
    return keras.Model(image, keras.layers.Conv2D(3, 1, dtype="float32")(x))


def train(model, forward, images, labels):
    """Two steps of one compiled function: losses and gradients, and what they leave in the variables."""

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, forward(images))
            loss = tf.reduce_mean(losses)
        return loss, tape.gradient(loss, model.trainable_variables)

    results = [step(), step()]
    return results, [variable.numpy() for variable in model.variables]


def test_a_step_is_that_of_the_plain_model():
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (2, 16, 16, 3), np.uint8), random.integers(0, 3, (2, 16, 16))
    plain = build()
    saving = build()
    forward = remat.Rematerialized(saving, (16, 16))
    assert len(forward._segments) > 2
    config = saving.get_config()
    expected, variables = train(plain, lambda x: plain(x, training=True), images, labels)
    got, saved = train(saving, forward, images, labels)
    for (loss, gradients), (other_loss, others) in zip(expected, got, strict=True):
        assert float(loss) == pytest.approx(float(other_loss), rel=1e-6)
        top = max(np.abs(gradient).max() for gradient in gradients)
        for a, b in zip(gradients, others, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * top)
    # Moving statistics took two updates, not four, and dropout drew twice.
    for a, b in zip(variables, saved, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    assert [v.numpy().tolist() for v in saving.variables if "seed" in v.path] == [[3, 2]]
    assert saving.get_config() == config  # a file of it is that of the plain model


def test_maps_inside_a_segment_are_not_kept():
    """The forward pass hands only what passes the cuts to the backward pass: no convolution's input but theirs."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), *(keras.layers.Conv2D(2, 1, activation="tanh") for _ in range(9))]
    )
    forward = remat.Rematerialized(model, (8, 8))
    assert [len(segment.nodes) for segment in forward._segments] == [3, 3, 3]

    def graph(function):
        with tf.GradientTape() as tape:
            y = function(tf.ones((1, 8, 8, 2)))
        return tape.gradient(y, model.trainable_variables)

    counts = []
    for function in (lambda x: model(x, training=True), forward):
        traced = tf.function(graph).get_concrete_function(function).graph
        counts.append(sum(op.type == "Conv2D" for op in traced.get_operations()))
    assert counts == [9, 9 + 6]  # the last segment is not computed again


def test_cuts_by_hand():
    """Nine maps of one byte in a row: three segments keep 3 and hold 3; two or four would cost more."""
    made = [[i] for i in range(9)]
    last_use = {i: i + 1 for i in range(9)}
    assert remat._cheapest_cuts(made, last_use, dict.fromkeys(range(9), 1), 3) == (3, [(0, 3), (3, 6), (6, 9)])
    # A map that is needed to the end (a skip) is kept once, wherever the cuts are.
    assert remat._cheapest_cuts(made, last_use | {0: 9}, dict.fromkeys(range(9), 1), 3)[0] == 4


def test_what_it_cannot_take():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="needs a functional or sequential model, got Own"):
        remat.Rematerialized(Own(), (8, 8))
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1, activity_regularizer="l2")])
    with pytest.raises(ValueError, match="activity regularizers"):
        remat.Rematerialized(model, (8, 8))
