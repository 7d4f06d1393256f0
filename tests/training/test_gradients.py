"""A weight that the loss does not depend on: the others train as without it, in every kind of step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg.io.errors import InputError
from kseg.losses import loss_terms
from kseg.settings import make_settings
from kseg.training.build import build_optimizer, precision
from kseg.training.trainers import make_trainer

RATE = 0.1
DECAY = 0.5
STEPS = 3


class Spare(keras.layers.Layer):
    """Two weights that nothing is computed from."""

    def build(self, shape):
        self.unused = self.add_weight(shape=(2,), initializer="ones", name="kernel")
        self.scale = self.add_weight(shape=(2,), initializer="ones", name="bias")

    def call(self, x):
        return x


def train(spare, optimizer="sgd", passes=1, mixed_precision="none", ema_momentum=0.0):
    """Three steps; returns the model's weights, those of `Spare` apart, and their averages."""
    trainer = make_trainer("one", 2, accumulate_steps=passes)
    settings = make_settings(
        train_steps=STEPS,
        optimizer=optimizer,
        learning_rate=RATE,
        weight_decay=DECAY,
        clip_norm=0.01,
        mixed_precision=mixed_precision,
    )
    keras.utils.set_random_seed(0)
    with precision(mixed_precision):
        image = keras.Input((8, 8, 3))
        x = keras.layers.Rescaling(1 / 255)(image)
        x = keras.layers.Conv2D(3, 3, dtype="float32")(Spare()(x) if spare else x)
        model = keras.Model(image, x)
        rule = build_optimizer(settings, STEPS)
    trainer.build(model, rule, 3, loss_terms("cross_entropy"), ema_momentum=ema_momentum)
    random = np.random.default_rng(0)
    for step in range(1, STEPS + 1):
        images = tf.constant(random.integers(0, 256, (2, 8, 8, 3), np.uint8))
        labels = tf.constant(random.integers(0, 3, (2, 6, 6), np.uint8))
        trainer.train_step(step, (images, labels))
        trainer.wait()
    with trainer.averaged_weights():
        spares = [v.numpy() for v in model.variables if v.shape == (2,)]
        return [v.numpy() for v in model.variables if v.shape != (2,)], spares


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("mixed_precision", ["none", "float16"])
def test_the_others_train_as_without_it(optimizer, passes, mixed_precision):
    options = {"optimizer": optimizer, "passes": passes, "mixed_precision": mixed_precision}
    expected, none = train(False, **options)
    with pytest.warns(UserWarning, match="loss does not depend on spare.*/kernel, spare.*/bias: not trained"):
        got, (kernel, bias) = train(True, **options)
    assert none == [] and len(got) == len(expected) == 2
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    # A gradient of zero: kernels decay, w - rate * decay * w in each step, and biases stay.
    np.testing.assert_allclose(kernel, np.full(2, (1 - RATE * DECAY) ** STEPS), rtol=1e-6)
    np.testing.assert_array_equal(bias, np.ones(2))


@pytest.mark.filterwarnings("ignore:The loss does not depend")
def test_the_average_follows_it():
    _, (kernel, bias) = train(True, mixed_precision="float16", ema_momentum=0.999)
    average = 1.0
    for t in range(STEPS):
        m = (1 + t) / (10 + t)
        average = m * average + (1 - m) * (1 - RATE * DECAY) ** (t + 1)
    np.testing.assert_allclose(kernel, np.full(2, average), rtol=1e-6)
    np.testing.assert_array_equal(bias, np.ones(2))


def test_a_loss_without_any_gradient_is_refused():
    trainer = make_trainer("one", 2)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(3, 1)(image)
    model = keras.Model(image, keras.ops.stop_gradient(x))
    trainer.build(model, build_optimizer(make_settings(train_steps=1), 1), 3, loss_terms("cross_entropy"))
    with pytest.raises(InputError, match="depends on no weight of the model"):
        trainer.train_step(1, (tf.zeros((2, 8, 8, 3), tf.uint8), tf.zeros((2, 8, 8), tf.uint8)))
