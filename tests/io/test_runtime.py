"""Which kernels and which allocator TensorFlow runs with: chosen before it is imported, named, kept by a run."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tiny

import kseg
from kseg.io import runtime
from kseg.io.errors import InputError
from kseg.training import launch

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARIABLES = (runtime.ALLOCATOR, runtime.LIMIT, runtime.ONEDNN, "XLA_FLAGS")


def users_environment(**values):
    """The environment without what the tests set for themselves, and with `values`."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    return {**kept, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", **values}


def run_python(program, *arguments, **environment):
    """Run a program in a new process; gives (exit code, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=users_environment(**environment),
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def fresh(monkeypatch):
    """This process as if TensorFlow had not been imported and no variable set; changes are undone."""
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    for name in VARIABLES:
        monkeypatch.setenv(name, "remembered, to be restored")
        monkeypatch.delenv(name)
    return monkeypatch


def test_buffers_are_kept_unless_the_user_has_chosen(fresh):
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**18 * 32}  # 2^18 pages of 4096 bytes are a GiB: 32 GiB
    fresh.setattr(os, "sysconf", pages.get)
    runtime.keep_buffers()
    # TensorFlow's own limit, 64 GB, is more than there is
    assert os.environ[runtime.ALLOCATOR] == "true" and runtime.LIMIT not in os.environ
    fresh.delenv(runtime.ALLOCATOR)
    pages["SC_PHYS_PAGES"] = 2**18 * 96  # 96 GiB: a run may use them all, as it could without this allocator
    runtime.keep_buffers()
    assert os.environ[runtime.LIMIT] == "98304"  # 96 * 1024 MB
    fresh.setenv(runtime.ALLOCATOR, "0")
    fresh.delenv(runtime.LIMIT)
    runtime.keep_buffers()
    assert os.environ[runtime.ALLOCATOR] == "0" and runtime.LIMIT not in os.environ


@pytest.mark.parametrize(
    ("setting", "stored", "width", "before", "after"),
    [
        ("auto", None, 8, None, "1"),  # narrow: on, wherever
        ("auto", None, runtime.NARROW, None, "1"),
        ("auto", None, runtime.NARROW + 1, None, None),  # wide: TensorFlow's own rule
        ("auto", None, None, None, None),  # of unknown width
        ("auto", None, 8, "0", "0"),  # the user's variable counts more than the rule
        ("auto", "off", 8, None, "0"),  # a run goes on as it began
        ("auto", "on", 64, "0", "1"),  # also where the variable is another today
        ("auto", "", 8, None, None),  # a run of an older kseg went by TensorFlow's rule
        ("on", None, 64, "0", "1"),  # the setting counts most
        ("off", None, 8, None, "0"),
    ],
)
def test_kernels_are_chosen_before_tensorflow_is_imported(fresh, setting, stored, width, before, after):
    if before is not None:
        fresh.setenv(runtime.ONEDNN, before)
    runtime.choose_kernels(setting, stored, width)
    assert os.environ.get(runtime.ONEDNN) == after


def test_nothing_is_set_when_tensorflow_is_there_already(fresh):
    fresh.setitem(sys.modules, "tensorflow", object())
    runtime.choose_kernels("on", None, 8)
    assert runtime.ONEDNN not in os.environ


def test_a_run_says_how_wide_it_is_and_what_it_began_with(fresh, tmp_path):
    asked = []
    fresh.setattr(launch, "choose_kernels", lambda *arguments: asked.append(arguments))
    launch.choose_for_run("unet", tmp_path / "new", None, "auto")
    launch.choose_for_run("unet", tmp_path / "new", {"base_filters": 8}, "off")
    launch.choose_for_run(tiny.build_tiny, tmp_path / "new", None, "auto")
    (tmp_path / "flags.txt").write_text("--model=unet\n--onednn=off\n")
    launch.choose_for_run("unet", tmp_path, {}, "auto")
    (tmp_path / "flags.txt").write_text("--model=unet\n")
    launch.choose_for_run("unet", str(tmp_path), {}, "auto")
    assert asked == [("auto", None, 64), ("off", None, 8), ("auto", None, None), ("auto", "off", 64), ("auto", "", 64)]


def test_what_runs_must_be_what_run_and_setting_say(monkeypatch):
    monkeypatch.setattr(runtime, "runs_onednn", lambda: False)
    assert [runtime.settle_kernels(*pair) for pair in (("auto", None), ("off", None), ("auto", "off"))] == ["off"] * 3
    with pytest.raises(InputError, match="holds a run with onednn=off, got on.*another workdir.*init_from"):
        runtime.settle_kernels("on", "off")
    with pytest.raises(InputError, match="oneDNN off, but the run in the workdir was trained with oneDNN on.*OPTS=1"):
        runtime.settle_kernels("auto", "on")
    with pytest.raises(InputError, match="oneDNN off, but onednn asks for a run with oneDNN on"):
        runtime.settle_kernels("on", None)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert runtime.settle_kernels("auto", None) == "auto"
    with pytest.raises(InputError, match="onednn needs KERAS_BACKEND=tensorflow, got jax"):
        runtime.settle_kernels("off", None)


DESCRIBE = """
import json
{first}
import kseg
from kseg.io import runtime
print(json.dumps(runtime.describe_kernels()))
"""


@pytest.mark.parametrize(
    ("first", "environment", "words"),
    [
        ("", {runtime.ONEDNN: "1", runtime.ALLOCATOR: "false"}, "oneDNN on, oneDNN allocator"),
        # Importing TensorFlow first is not too late for the allocator, running something is.
        ("import tensorflow", {runtime.ONEDNN: "1"}, "oneDNN on, BFC allocator"),
        ("import tensorflow; tensorflow.zeros(3) + 1", {runtime.ONEDNN: "0"}, "oneDNN off, system allocator"),
    ],
    ids=["the user's choice", "imported first", "run first"],
)
def test_kernels_and_allocator_are_those_that_run(first, environment, words):
    code, out, error = run_python(DESCRIBE.format(first=first), **environment)
    assert code == 0, error
    told, warning = json.loads(out.splitlines()[-1])
    assert told == words
    if words == "oneDNN off, system allocator":
        assert "take up to twice as long. Import kseg first, or start Python with TF_CPU_ALL" in warning
    else:
        assert warning is None


def test_who_chose_the_system_s_allocator_is_not_warned(monkeypatch):
    monkeypatch.setattr(runtime, "allocator", lambda: "system")
    monkeypatch.setenv(runtime.ALLOCATOR, "true")
    assert "Import kseg first" in runtime.describe_kernels()[1]
    monkeypatch.setenv(runtime.ALLOCATOR, "0")
    assert runtime.describe_kernels()[1] is None


SETTINGS = {**tiny.SETTINGS, "epochs": 1, "model_options": {"base_filters": 4, "depth": 2}}
# kseg.train comes before TensorFlow is imported, where the plain call goes on.
GO_ON = """
import json, sys
import kseg

kseg.train("unet", *sys.argv[1:3], **json.loads(sys.argv[3]))
"""
WHOLE_AND_KILLED = """
import json, os, signal, sys
import keras, kseg
from kseg.training import validation

validation.export_saved_model = lambda *parts, **options: None  # takes a while, and is nothing of what is compared

class Killed(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

records, whole, killed, settings = *sys.argv[1:4], json.loads(sys.argv[4])
kseg.train("unet", records, whole, **settings)
kseg.train("unet", records, killed, callbacks=[Killed()], **settings)
"""


def test_a_run_keeps_its_kernels_and_its_bits_where_the_default_is_another(tmp_path):
    """Begun with oneDNN off and killed, gone on by the plain call, which by itself takes oneDNN for so narrow a net."""
    records = tiny.write_records(tmp_path)
    whole = tmp_path / "whole"
    killed = tmp_path / "killed"
    code, out, error = run_python(
        WHOLE_AND_KILLED, records, whole, killed, json.dumps(SETTINGS), TF_ENABLE_ONEDNN_OPTS="0"
    )
    assert code == 128 + signal.SIGTERM, error[-3000:]
    assert "on 1 CPU (oneDNN off), float32" in out
    assert "--onednn=off" in (killed / "flags.txt").read_text().splitlines()
    with pytest.raises(InputError, match="holds a run with onednn=off, got on"):
        kseg.train("unet", records, killed, **SETTINGS, onednn="on")
    code, out, error = run_python(GO_ON, records, killed, json.dumps(SETTINGS), TF_ENABLE_ONEDNN_OPTS="1")
    assert code == 0, error[-3000:]
    assert "Going on from step 2" in out and "on 1 CPU (oneDNN off), float32" in out
    models = [kseg.load_model(folder / "last.keras") for folder in (whole, killed)]
    for a, b in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (whole / "history.csv").read_text() == (killed / "history.csv").read_text()
