"""Train on one device and on several logical CPUs and compare: `python tests/programs/replicas.py RECORDS OUTPUT`."""

import pathlib
import sys
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import keras
import numpy as np
import replica_recipes
import tensorflow as tf
import tiny

import kseg
from kseg import layers
from kseg.losses import loss_terms
from kseg.training.trainers import make_trainer

LOSS = "cross_entropy+0.5*dice+0.5*top_k_cross_entropy+0.5*lovasz_softmax"
SMOOTH = "cross_entropy+0.5*dice"  # no sorting, which a last digit may turn
SETTINGS = {**tiny.SETTINGS, "batch_size": 4, "epochs": 0, "train_steps": 3, "optimizer": "sgd", "loss": LOSS}
SETTINGS["ema_momentum"] = 0.5


def build_exact(trainable_norm):
    """A network in float64, so that the order of a sum over pixels makes no difference."""
    image = keras.Input((32, 64, 3), dtype="float64")
    x = keras.layers.Rescaling(1 / 255, dtype="float64")(image)
    x = keras.layers.Conv2D(4, 3, dtype="float64")(x)
    x = keras.layers.ReLU(dtype="float64")(layers.BatchNormalization(dtype="float64", trainable=trainable_norm)(x))
    return keras.Model(image, keras.layers.Conv2DTranspose(3, 3, dtype="float64")(x))


def devices(count):
    """Let a trainer have so many of the CPUs."""
    tf.distribute.MirroredStrategy._collective_key_base += 10**6  # TensorFlow's for tests: another number of devices
    return unittest.mock.patch(
        "kseg.training.trainers.tensorflow.choose_devices", lambda *_: [f"CPU:{i}" for i in range(count)]
    )


def run_loop(replicas, passes=1, trainable_norm=True, wrap=lambda optimizer: optimizer):
    """Three steps of SGD on batches whose ignored pixels lie almost all in the last two of four images.

    Returns: losses, gradients of the first step, variables, confusion matrix.
    """
    with devices(replicas):
        trainer = make_trainer("mirrored", 4, accumulate_steps=passes)
    assert trainer.devices == replicas
    with trainer.scope():
        keras.utils.set_random_seed(0)
        model = build_exact(trainable_norm)
        optimizer = wrap(keras.optimizers.SGD(0.5, momentum=0.5))
    trainer.build(model, optimizer, 3, loss_terms(SMOOTH))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 32, 64, 3), np.uint8)
    labels = random.integers(0, 3, (12, 32, 64), np.uint8)
    labels[2::4, 3:] = labels[3::4] = 255
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4 // replicas, drop_remainder=True)
    batches = iter(trainer.strategy.distribute_datasets_from_function(lambda context: data))
    sums = []
    gradients = None
    for step in (1, 2, 3):
        trainer.train_step(step, next(batches))
        trainer.wait()
        sums.append(trainer.loss_sum)
        if step == 1:  # the momentum of a first step is -rate * gradient
            gradients = [v.numpy() / -0.5 for v in optimizer.variables if v.path.endswith("momentum")]
    return sums, gradients, [variable.numpy() for variable in model.variables], trainer.matrix


def compare(one, other):
    """Loss and gradients to 1e-6, weights and statistics too, scores exactly."""
    np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
    top = max(np.abs(gradient).max() for gradient in one[1])
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8 * top)  # that of a bias before batch norm is 0
    for a, b in zip(one[2], other[2], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_array_equal(one[3], other[3])
    assert one[3].sum() == 3 * (2 * 32 * 64 + 3 * 64)  # the valid pixels of three batches


def compare_loops():
    """1, 2 and 4 replicas; passes that are accumulated, also under both and with scaled gradients."""
    one = run_loop(1)
    for replicas in (2, 4):
        compare(one, run_loop(replicas))
    frozen = run_loop(1, trainable_norm=False)
    compare(frozen, run_loop(1, 4, trainable_norm=False))
    scaled = run_loop(2, 2, trainable_norm=False, wrap=lambda sgd: keras.optimizers.LossScaleOptimizer(sgd, 256.0))
    compare(frozen, (scaled[0], list(scaled[1]), *scaled[2:]))


def draw():
    """The dropout masks of two replicas for the same image, in two steps."""
    with devices(2):
        trainer = make_trainer("mirrored", 2)
    with trainer.scope():
        image = keras.Input((8, 8, 3))
        model = keras.Model(image, keras.layers.Dropout(0.5, seed=3)(keras.layers.Conv2D(3, 1)(image)))
        optimizer = keras.optimizers.SGD()
    trainer.build(model, optimizer, 3, [])
    step = tf.function(lambda: trainer.strategy.run(lambda: model(tf.ones((1, 8, 8, 3)), training=True)))
    masks = [[part.numpy() != 0 for part in trainer.strategy.experimental_local_results(step())] for _ in range(2)]
    states = [v.numpy() for v in model.non_trainable_variables]
    return np.array(masks), states


def main(records, output):
    """Assert that one replica and more agree, in single steps and in a whole run."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
    )
    compare_loops()
    masks, states = draw()
    shapes = masks.reshape(4, -1)  # all four differ, and another run draws the same
    assert len({mask.tobytes() for mask in shapes}) == 4 and states[0].tolist() == [3, 2]
    np.testing.assert_array_equal(masks, draw()[0])

    output = pathlib.Path(output)
    for name, count in (("one", 1), ("two", 2)):
        with devices(count):
            kseg.train(tiny.build_without_dropout, records, output / name, strategy="mirrored", **SETTINGS)
    one, two = (kseg.load_model(output / name / "last.keras") for name in ("one", "two"))
    assert not two.get_layer("norm").synchronized  # a saved file loads on every backend
    for a, b in zip(one.variables, two.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)
    try:
        make_trainer("mirrored", 6)
    except ValueError as error:
        assert "divisible by the 4 devices" in str(error)
    else:
        raise AssertionError("a batch of 6 over 4 devices must be refused")
    replica_recipes.check()


if __name__ == "__main__":
    main(*sys.argv[1:])
