import importlib.util
import json
import os
import subprocess
import sys

import decoders
import numpy as np
import pytest
import tiny


@pytest.fixture(scope="module")
def found(root, tmp_path_factory):
    """What tests/programs/portable.py reports from a process without TensorFlow, on two JAX CPU devices."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed (pip install -e '.[test]')")
    folder = tmp_path_factory.mktemp("portable")
    records = tiny.write_records(folder)
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": str(root),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
    }
    command = [sys.executable, str(root / "tests" / "programs" / "portable.py"), str(folder / "source"), str(records)]
    done = subprocess.run([*command, str(folder / "out")], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1]) | {"decoders": dict(np.load(folder / "out" / "decoders.npz"))}


def test_fit_on_a_reader_and_the_plan_learns(found):
    assert found["backend"] == "jax" and found["devices"] == 2
    assert found["losses"][-1] < 0.8 * found["losses"][0]
    assert found["train_iou"][-1] > found["train_iou"][0] and found["images"] == 5


def test_train_resumes_to_the_same_bits(found):
    assert found["same"] and found["steps"] == [3, 6, 9]
    assert 0 <= found["mean_iou"] <= 1


def test_the_average_is_the_one_by_hand(found):
    assert len(found["average"]) == 3
    for name, (by_hand, raw) in found["average"].items():
        assert by_hand < 1e-5 and raw > 0.01, name


def test_crops_outputs_and_smooth_labels_work(found):
    assert found["crops"] == [[None, None, None, 3], [None, None, None, 5], [42, 70]]


def test_what_this_backend_cannot_do_is_said(found):
    assert "saved_model" not in found["files"] and {"best.keras", "scores.json", "logs"} <= set(found["files"])
    assert "KERAS_BACKEND=tensorflow" in found["export"]
    assert "is a SavedModel, which needs KERAS_BACKEND=tensorflow, got jax. Give the run folder" in found["saved_model"]
    assert "is a SavedModel, which needs TensorFlow: pip install tensorflow" in found["saved_model_from_outside"]
    assert "runs on one machine (KERAS_BACKEND=jax), but TF_CONFIG names 3 workers" in found["group"]
    for what, message in zip(("strategy multiworker", "accumulate_steps", "remat"), found["refused"], strict=True):
        assert message.startswith(f"{what} needs KERAS_BACKEND=tensorflow, got jax")


@pytest.mark.parametrize("name", decoders.PORTABLE)
def test_decoders_give_what_they_give_on_tensorflow(found, name):
    expected = decoders.logits(name)
    assert found["decoders"][name].shape == (1, 32, 64, 3) and expected.std() > 0
    np.testing.assert_allclose(found["decoders"][name], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_a_decoder_with_group_norm_learns(found):
    assert found["fpn"][-1] < 0.9 * found["fpn"][0]
