"""The parts of a study: its plan, its budget, its files, its engine, its table."""

import io
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from kseg.io.errors import InputError
from kseg.models import build_model
from kseg.studies import usage
from kseg.studies.budgets import seconds_note, share_of
from kseg.studies.engines import ENGINES
from kseg.studies.engines.job import Job
from kseg.studies.engines.local import gpus
from kseg.studies.run_counts import RunCounts, counts_path, read_counts, write_counts
from kseg.studies.run_table import RunTable
from kseg.studies.study_plan import Limit, read_plan, run_names, train_flags

TEXT = """
name = "streets"
output = "runs/streets"
seeds = 2
flags = {height = 96, flip = false, learning_rate = 1e-3}
[budget]
kind = "multiply-adds"
value = 2e12
[[models]]
name = "narrow"
model = "unet"
options = {base_filters = 8}
flags = {learning_rate = 0.01}
[[models]]
name = "segnet"
[[data]]
name = "drawn"
data_dir = "data/drawn"
dataset = "synthetic"
splits = ["val", "test"]
"""


def write(tmp_path, text):
    path = tmp_path / "STUDY.toml"
    path.write_text(text)
    return path


def test_a_plan_is_read_and_gives_the_flags_of_its_runs(tmp_path):
    plan = read_plan(write(tmp_path, TEXT))
    assert plan.seeds == (0, 1)
    assert plan.budget == Limit("multiply-adds", 2 * 10**12) and isinstance(plan.budget.value, int)
    assert [(model.name, data.name, seed) for model, data, seed in run_names(plan)] == [
        ("narrow", "drawn", 0),
        ("segnet", "drawn", 0),
        ("narrow", "drawn", 1),
        ("segnet", "drawn", 1),
    ]
    assert train_flags(plan, plan.models[0], plan.data[0]) == [
        "--height=96",
        "--flip=false",
        "--learning_rate=0.01",  # the model's own
        '--model_options={"base_filters": 8}',
        "--model=unet",
        "--data_dir=data/drawn",
        "--dataset=synthetic",
    ]
    assert read_plan(plan.as_json() | {"models": [{"name": "segnet"}]}).models[0].model == "segnet"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 2", "seeds = 0", "The number of seeds must be a whole number of at least 1, got 0."),
        ("seeds = 2", "seeds = [1, 1]", "a list of different seeds, got [1, 1]"),
        ("seeds = 2", "seed = 2", "Unknown key 'seed' of a study."),
        ("seeds = 2", "", "The key 'seeds' of a study is missing."),
        ("seeds = 2", "seeds = ", "is not TOML"),
        ("2e12", "0", "value of the budget must be a number above 0, got 0."),
        ("2e12", "1.5", "value of a budget of multiply-adds must be a whole number, got 1.5."),
        (
            "multiply-adds",
            "epochs",
            "kind of the budget must be one of multiply-adds, images, seconds, gpu-seconds, got 'epochs'.",
        ),
        ('"segnet"', '"Narrow"', "Names in models must differ, also in more than case, but narrow is there twice."),
        ('"segnet"', '"../x"', "names a folder"),
        ("height = 96", "epochs = 3", "flags must not set epochs, which the study itself sets"),
        ("{learning_rate = 0.01}", "{patience = 3}", "flags of model narrow must not set patience"),
        ("{base_filters = 8}", "8", "must be text and options a table"),
        ('["val", "test"]', '["val", "val"]', "splits of drawn must be a list of different splits"),
        ('"synthetic"', '"mars"', "dataset of drawn must be one of"),
        ('name = "streets"', 'name = "streets"\npaired = 1', "paired must be true or false, got 1."),
        ('model = "unet"', 'flagfile = "nowhere.flags"', "The flagfile of model narrow must be a file or"),
    ],
)
def test_a_bad_plan_is_refused_with_its_place(tmp_path, old, new, message):
    assert old in TEXT
    path = write(tmp_path, TEXT.replace(old, new))
    with pytest.raises(InputError) as error:
        read_plan(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)


def test_what_is_neither_a_path_nor_a_table_is_refused():
    with pytest.raises(InputError, match="must be the path of a TOML file, or a dict of its keys, got None"):
        read_plan(None)


@pytest.mark.parametrize(
    ("limit", "steps", "spent", "left"),
    [
        # A step: 3 * 50 * 8 = 1,200 multiply-adds, 8 images, 0.25 seconds.
        (Limit("multiply-adds", 12_000), 10, 12_000, 0),
        (Limit("multiply-adds", 13_199), 10, 12_000, 1_199),
        (Limit("images", 87), 10, 80, 7),
        (Limit("seconds", 2.6), 10, 2.5, pytest.approx(0.1)),
        (Limit("gpu-seconds", 2.6), 10, 2.5, pytest.approx(0.1)),
    ],
)
def test_steps_of_a_budget(limit, steps, spent, left):
    facts = {"batch_size": 8, "multiply_adds": 50, "seconds_per_step": 0.25}
    share = share_of(limit, facts, "unet")
    assert (share.steps, share.images, share.spent, share.left) == (steps, 8 * steps, spent, left)


def test_a_budget_of_seconds_is_held_against_what_the_runs_took():
    limit = {"kind": "seconds", "value": 200}
    fast = {"model": "unet", "data": "streets", "cpu_seconds": 210}
    slow = {"model": "segnet", "data": "streets", "cpu_seconds": 260}  # 1.24 times as many
    kept = seconds_note(limit, [fast, slow])
    assert "a run took 1.05 to 1.30 times the budget" in kept and "not equal" not in kept
    slow["cpu_seconds"] = 264  # 1.26 times as many
    broken = seconds_note(limit, [fast, slow])
    assert "not equal: segnet took 1.32 times the budget and unet 1.05 times" in broken
    assert "segnet on camvid took" in seconds_note(limit, [fast, slow | {"data": "camvid"}])
    assert "a run took 1.05 times the budget" in seconds_note(limit, [fast])


def test_other_budgets_are_not_held_against_seconds():
    row = {"model": "unet", "data": "streets", "cpu_seconds": 210}
    assert seconds_note({"kind": "images", "value": 200}, [row]) == ""
    assert seconds_note({"kind": "seconds", "value": 200}, []) == ""
    assert "was not measured" in seconds_note({"kind": "gpu-seconds", "value": 200}, [row])


def test_a_budget_of_less_than_a_step_is_refused():
    with pytest.raises(InputError, match="must pay for one step at least, but a step of unet takes 8"):
        share_of(Limit("images", 7), {"batch_size": 8, "multiply_adds": 50}, "unet")


def test_counts_come_back_exactly_and_are_small(tmp_path):
    random = np.random.default_rng(0)
    found = RunCounts(
        counts=random.integers(0, 2**21, (100, 3, 19)),
        names=tuple(f"città_{i:06}" for i in range(100)),
        classes=tuple(f"class {i}" for i in range(19)),
        drive="([a-z]+)_.*",
        row={"model": "unet", "seed": 3, "mean_iou": 0.1 + 0.2, "peak_memory": None},
    )
    path = counts_path(tmp_path, "unet", "drawn", 3, "val")
    write_counts(path, found)
    again = read_counts(path)
    assert again.counts.dtype == np.int64 and (again.counts == found.counts).all()
    assert (again.names, again.classes, again.drive, again.row) == (found.names, found.classes, found.drive, found.row)
    # 57 random numbers of 21 bits are 150 bytes; no code that treats bytes as symbols comes under twice that.
    assert path.stat().st_size < 100 * 400
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="is damaged"):
        read_counts(path)


def test_usage_is_kept_while_a_process_runs_and_added_up(tmp_path):
    program = (
        "import os, sys, time\nfrom kseg.studies import usage\nusage.SECONDS = .02\nusage.record(sys.argv[1])\n"
        "end = time.process_time() + .3\nwhile time.process_time() < end: pass\n"
        "block = bytearray(200_000_000)\ntime.sleep(.5)\nos._exit(9)\n"  # as if killed: nothing is done at its end
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    assert len(list(tmp_path.glob("usage-*.json"))) == 2
    found = usage.total(tmp_path)
    assert found["cpu_seconds"] >= 0.6  # twice what each loop waits for
    assert found["peak_memory"] >= 200_000_000
    assert usage.total(tmp_path / "none") == {"cpu_seconds": 0, "peak_memory": None}


def job(tmp_path, name, *programs):
    return Job(name, tuple([sys.executable, "-c", program] for program in programs), tmp_path / f"{name}.txt")


def test_local_runs_a_jobs_commands_in_turn_and_stops_at_one_that_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    started = []
    jobs = [
        job(tmp_path, "good", "print('a')", "print('b')"),
        job(tmp_path, "bad", "print('a'); raise SystemExit(4)", "print('b')"),
    ]
    found = [(one.name, code) for one, code in ENGINES["local"](jobs, lambda one: started.append(one.name))]
    assert found == [("good", 0), ("bad", 4)] and started == ["good", "bad"]
    assert (tmp_path / "good.txt").read_text() == "a\nb\n"
    assert (tmp_path / "bad.txt").read_text() == "a\n"


def test_local_gives_each_gpu_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert gpus() == ["2", "5"]
    meet = (  # each waits for the other: one after another they would never end
        "import os, pathlib, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "gpu = os.environ['CUDA_VISIBLE_DEVICES']\n"
        "(folder / f'gpu-{gpu}').touch()\n"
        "while len(list(folder.glob('gpu-*'))) < 2: time.sleep(.01)\n"
        "print(gpu)\n"
    )
    jobs = [job(tmp_path, "one", meet), job(tmp_path, "two", meet)]
    assert sorted(one.name for one, _ in ENGINES["local"](jobs, lambda _: None)) == ["one", "two"]
    assert [(tmp_path / f"{name}.txt").read_text() for name in ("one", "two")] == ["2\n", "5\n"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == []


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_table_counts_runs_and_tells_the_time_left():
    now = [0.0]
    stream = io.StringIO()
    runs = [("a-0", "a"), ("b-0", "b"), ("a-1", "a"), ("b-1", "b")]
    table = RunTable(runs, {"a-0"}, stream=stream, clock=lambda: now[0])
    table.started("b-0")
    now[0] = 60.0
    table.ended("b-0", True)
    table.started("a-1")
    now[0] = 90.0  # two runs of a minute, half of one is done
    assert table.state() == "2 of 4 runs done, 1 running, 1 left, 01:30 to go"
    table.ended("a-1", False)
    assert stream.getvalue().splitlines()[1] == "b-0 done: 2 of 4 runs done, 0 running, 2 left, 02:00 to go"
    # A mean of 60 and 30 seconds.
    assert stream.getvalue().splitlines()[3] == (
        "a-1 BROKEN: 2 of 4 runs done, 0 running, 1 left, 1 broken, 00:45 to go"
    )


def test_a_run_that_waits_again_is_left():
    stream = io.StringIO()
    table = RunTable([("a-0", "a"), ("b-0", "b")], (), stream=stream, clock=lambda: 0.0)
    table.started("a-0")
    table.waits("a-0")
    assert stream.getvalue().splitlines()[1] == "a-0 waits: 0 of 2 runs done, 0 running, 2 left"


def test_on_a_terminal_the_table_is_drawn_over_itself():
    stream = _Terminal()
    table = RunTable([("a-0", "a"), ("b-0", "b")], (), stream=stream, clock=lambda: 0.0)
    table.started("a-0")
    table.ended("a-0", True)
    first, second = stream.getvalue().split("\x1b[4A")  # title, two models, the sum
    assert [line.removeprefix("\x1b[2K").split() for line in first.splitlines()[:3]] == [
        ["model", "done", "running", "broken", "left"],
        ["a", "0", "1", "0", "0"],
        ["b", "0", "0", "0", "1"],
    ]
    assert second.splitlines()[1].split()[1:] == ["1", "0", "0", "0"]


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_what_a_flagfile_of_train_would_cost_is_measured_without_training(backend, records, tmp_path):
    """The hidden command of a study: counts as by hand, and a pilot's seconds."""
    (tmp_path / "a.flags").write_text("--batch_size=2\n--height=32\n--width=64\n--epochs=9\n")
    program = "from kseg.commands.study_command import measure; measure()"
    output = tmp_path / "facts.json"
    flags = [f"--flagfile={tmp_path / 'a.flags'}", "--dataset=folder", "--model=unet", f"--data_dir={records}"]
    flags += [
        f"--workdir={tmp_path}",
        "--epochs=0",
        "--train_steps=1",
        '--model_options={"base_filters": 2, "depth": 2}',
    ]
    command = [sys.executable, "-c", program, str(output), "cpu", *flags]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    facts = json.loads(output.read_text())
    from kseg.models import costs

    model = build_model("unet", (32, 64, 3), 3, base_filters=2, depth=2)
    assert facts["multiply_adds"] == costs.multiply_adds(model)
    assert facts["parameters"] == costs.parameters(model)
    assert facts["batch_size"] == 2
    assert 0 < facts["seconds_per_step"] < 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flags", "facts.json"]
    done = subprocess.run([*command, "--patience=3"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "A run with a budget must not stop early, got --patience=3." in done.stderr


def test_seconds_of_a_gpu_are_those_of_a_clock_on_the_wall(records, monkeypatch):
    import keras

    from kseg.settings import Settings
    from kseg.training import pilot

    settings = Settings(batch_size=2, height=32, width=64, train_steps=1)
    arguments = ("unet", records, {"base_filters": 2, "depth": 2}, settings)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
    with pytest.raises(InputError, match="A budget of gpu-seconds needs a GPU, but tensorflow sees none"):
        pilot.facts_of_run(*arguments, timed="gpu")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0", "gpu:0"])
    with pytest.raises(InputError, match="CPU seconds says nothing about work on a GPU"):
        pilot.facts_of_run(*arguments, timed="cpu")
    # A clock that a fourth of a second passes on between two looks at it: so long is a step between two marks.
    ticking = itertools.count(step=0.25)
    monkeypatch.setattr(pilot.time, "perf_counter", lambda: next(ticking))
    monkeypatch.setattr(pilot, "train", lambda *_, callbacks, **settings: _steps(callbacks[0], settings["train_steps"]))
    assert pilot.facts_of_run(*arguments, timed="gpu")["seconds_per_step"] == 0.25


def _steps(callback, count):
    callback.set_model(build_model("unet", (32, 64, 3), 3, base_filters=2, depth=2))
    for step in range(count):
        callback.on_train_batch_end(step)
