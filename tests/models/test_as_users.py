"""The tests switch oneDNN off and weaken XLA for their own speed: here every model runs once as users have them."""

import os
import subprocess
import sys

import as_users
import numpy as np
import pytest
import tensorflow as tf

from kseg.io import runtime
from kseg.models import MODELS


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory):
    """What each model gives in a process where nothing is switched off: NAME.npz."""
    folder = tmp_path_factory.mktemp("as_users")
    chosen = (runtime.ONEDNN, runtime.ALLOCATOR, runtime.LIMIT, "XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in chosen}
    environment["PYTHONPATH"] = str(root)
    command = [sys.executable, str(root / "tests" / "programs" / "as_users.py"), str(folder)]
    # A narrow network has oneDNN, as kseg.train chooses before TensorFlow is imported.
    environment[runtime.ONEDNN] = "1"
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "oneDNN on, BFC allocator | XLA_FLAGS None" in done.stdout
    return folder


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_trains_as_users_run_it(folder, name):
    """The same step written out: eager, oneDNN off; gradient descent by the mean over the valid pixels."""
    images, labels = as_users.images_and_labels()
    model = as_users.build(name)
    expected = {"logits": np.asarray(model(images, training=False))}
    assert expected["logits"].shape == (4, *as_users.SIZE, as_users.CLASSES)
    valid = labels != 255
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(np.where(valid, labels, 0).astype(np.int32), logits)
        loss = tf.reduce_mean(entropies[valid])
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        variable.assign(variable - as_users.RATE * gradient)
    expected |= {"loss": loss.numpy()} | as_users.weights_of(model)
    if name == "segnet_aspp_fischer2021":  # one batch norm for many layers: rounding grows in its gradients
        expected = {what: expected[what] for what in ("logits", "loss")}
    # Of a bias before batch norm the gradient is 0 but for rounding: 1e-6. RU-Net has three batch norms of two channels
    # in a row at the full size, without a residual: on some processors rounding grows there to two hundredths.
    near, rounding = (0.05, 1e-5) if name == "runet" else (1e-3, 1e-6)
    with np.load(folder / f"{name}.npz") as found:
        assert set(found) >= set(expected)
        for what, value in expected.items():
            assert np.isfinite(found[what]).all(), what
            np.testing.assert_allclose(
                found[what], value, rtol=near, atol=near * np.abs(value).max() + rounding, err_msg=what
            )
