"""Train on one device and on two logical CPUs and compare: `python tests/replicas.py RECORDS OUTPUT`."""

import pathlib
import sys

import keras
import numpy as np
import replica_recipes
import tensorflow as tf
import tiny

import kseg
from kseg.loop import make_loop
from kseg.losses import loss_terms

LOSS = "cross_entropy+0.5*dice+0.5*top_k_cross_entropy+0.5*lovasz_softmax"
SETTINGS = {**tiny.SETTINGS, "batch_size": 4, "epochs": 0, "train_steps": 3, "optimizer": "sgd"}


def build():
    """`build_tiny` without dropout, whose masks are drawn for each replica's own part of the batch."""
    model = tiny.build_tiny()
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return model


def run_loop(strategy_name):
    """Three steps of SGD on batches whose ignored pixels lie almost all in the second replica's half."""
    loop = make_loop(strategy_name, 4)
    with loop.scope():
        keras.utils.set_random_seed(0)
        model, optimizer = build(), keras.optimizers.SGD(0.1, momentum=0.9)
    loop.attach(model, optimizer, 3, loss_terms(LOSS))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 32, 64, 3), np.uint8)
    labels = random.integers(0, 3, (12, 32, 64), np.uint8)
    labels[2::4, 3:] = labels[3::4] = 255
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4, drop_remainder=True)
    losses = []
    for step, batch in enumerate(loop.strategy.experimental_distribute_dataset(data), 1):
        loop.step(step, batch)
        loop.check()
        losses.append(loop.loss_sum)
    return losses, [variable.numpy() for variable in model.variables], loop.matrix


def main(records, output):
    """Assert that one replica and two agree, in the loop and in a whole run."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    one, two = run_loop("one"), run_loop("mirrored")
    np.testing.assert_allclose(one[0], two[0], rtol=1e-5)
    for a, b in zip(one[1], two[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_array_equal(one[2], two[2])
    assert one[2].sum() == 3 * (2 * 32 * 64 + 3 * 64)  # the valid pixels of three batches

    output = pathlib.Path(output)
    for name, strategy in (("one", "one"), ("two", "mirrored")):
        kseg.train(build, records, output / name, strategy=strategy, **SETTINGS)
    one, two = (kseg.load_model(output / name / "last.keras") for name in ("one", "two"))
    assert not two.get_layer("norm").synchronized  # a saved file loads on every backend
    for a, b in zip(one.variables, two.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)
    try:
        make_loop("mirrored", 3)
    except ValueError as error:
        assert "divide by the 2 devices" in str(error)
    else:
        raise AssertionError("a batch of 3 over 2 devices must be refused")
    replica_recipes.check()


if __name__ == "__main__":
    main(*sys.argv[1:])
