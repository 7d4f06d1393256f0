"""Groups of workers: what TF_CONFIG says, starting one on this machine, and (slow) training in one."""

import json
import os
import signal
import subprocess
import sys
import time

import local_group
import numpy as np
import pytest
import tiny

import kseg
from kseg.training.distribution import cluster as group
from kseg.training.trainers import make_trainer

CLUSTER = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}


def set_config(monkeypatch, kind, index, cluster=CLUSTER):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))


def test_the_place_in_the_group(monkeypatch):
    set_config(monkeypatch, "chief", 0)
    assert group.read_group() == (0, 3)
    set_config(monkeypatch, "worker", 1)
    assert group.read_group() == (2, 3)  # after the chief and worker 0
    set_config(monkeypatch, "worker", 0, {"worker": ["a:1", "b:1"]})
    assert group.read_group() == (0, 2)  # without a chief the first worker is it


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "needs TF_CONFIG, for example .* with its own index"),
        ("{", "TF_CONFIG must be JSON like"),
        ("[1]", "TF_CONFIG must be JSON like"),
        (json.dumps({"cluster": CLUSTER, "task": {"type": "worker", "index": 2}}), "must name chief and workers only"),
        (json.dumps({"cluster": CLUSTER | {"ps": ["d:1"]}, "task": {"type": "chief", "index": 0}}), "workers only"),
    ],
)
def test_a_bad_group_is_one_line(config, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=message):
        make_trainer("multiworker", 2)


def test_processes_started_here_know_each_other(tmp_path):
    """Each writes what it was told; the chief's output is shown, the others' is not."""
    code = "import os, sys; open(os.path.join(sys.argv[1], str(os.getpid())), 'w').write(os.environ['TF_CONFIG'])"
    assert local_group.run_local([sys.executable, "-c", code, str(tmp_path)], 3) == 0
    configs = [json.loads(path.read_text()) for path in tmp_path.iterdir()]
    assert sorted(config["task"]["index"] for config in configs) == [0, 1, 2]
    (addresses,) = {tuple(config["cluster"]["worker"]) for config in configs}
    assert len(set(addresses)) == 3 and all(address.startswith("127.0.0.1:") for address in addresses)


@pytest.mark.parametrize(("end", "code"), [("sys.exit(5)", 5), ("os.kill(os.getpid(), 9)", 128 + 9)])
def test_all_are_stopped_when_one_dies(end, code, capfd):
    """The others would sleep for a minute; the last words of the dead one are shown, and its exit code is given."""
    die = "import json, os, sys, time; index = json.loads(os.environ['TF_CONFIG'])['task']['index']\nif index == 1:\n"
    die += f"    print('no more disk', flush=True); {end}\ntime.sleep(60)"
    start = time.monotonic()
    assert local_group.run_local([sys.executable, "-c", die], 3) == code
    assert time.monotonic() - start < 30
    shown = capfd.readouterr().err
    assert "Worker 1 of 3 ended by " in shown and "no more disk" in shown


# The rest trains in processes of its own: a group must be joined before TensorFlow does anything.


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny.write_records(tmp_path_factory.mktemp("workers"))


def command(root, records, workdir, *more):
    program = str(root / "tests" / "programs" / "workers.py")
    return [sys.executable, program, str(records), str(workdir), "multiworker", *more]


@pytest.fixture(scope="module")
def together(records, tmp_path_factory, root):
    """The folder of a run of two workers, started on free ports."""
    workdir = tmp_path_factory.mktemp("group") / "two"
    assert local_group.run_local(command(root, records, workdir), 2) == 0
    return workdir


def weights(workdir):
    return kseg.load_model(workdir / "last.keras").get_weights()


@pytest.mark.slow
def test_two_workers_equal_one_process(together, records, tmp_path, root):
    alone = tmp_path / "one"
    done = subprocess.run([*command(root, records, alone)[:4], "one"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for a, b in zip(weights(alone), weights(together), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    reads = [(together.parent / f"two.reads.{index}").read_text().split() for index in (0, 1)]
    everything = (tmp_path / "one.reads.0").read_text().split()
    # Batches of two: the first of each is the chief's. Rows are read ahead and in parallel, so as sets of the first
    # steps; 18 rows make 9 steps.
    assert all(9 <= len(own) < len(everything) for own in reads) and len(everything) >= 18
    assert {path.name for path in together.iterdir()} == {path.name for path in alone.iterdir()}
    assert not list(together.glob("**/*tmp*"))


@pytest.mark.slow
def test_a_killed_worker_stops_the_others_and_a_restart_of_all_ends_with_the_same_bits(
    together, records, tmp_path, root
):
    workdir = tmp_path / "run"
    addresses = [f"127.0.0.1:{port}" for port in local_group._free_ports(2)]
    processes = []
    for index in (0, 1):  # not by run_local, which stops the others by itself
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
        processes.append(
            subprocess.Popen(command(root, records, workdir, "5"), env=environment, stderr=subprocess.PIPE, text=True)
        )
    assert processes[1].wait(400) == -signal.SIGKILL
    start = time.monotonic()
    errors = processes[0].communicate(timeout=120)[1]
    assert processes[0].returncode not in (0, None) and time.monotonic() - start < 60
    assert "Another worker of the group is gone" in errors and "Start all of them again" in errors
    processes[1].stderr.close()
    assert not (workdir / "scores.json").exists()
    assert local_group.run_local(command(root, records, workdir), 2) == 0
    assert (workdir / "history.csv").read_bytes() == (together / "history.csv").read_bytes()
    for a, b in zip(weights(workdir), weights(together), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.slow
def test_a_group_from_the_command_line(records, tmp_path, root, capfd):
    train = [sys.executable, str(root / "scripts" / "train.py"), "--dataset=folder", f"--data_dir={records}"]
    train += [f"--workdir={tmp_path / 'run'}", "--model=unet", "--strategy=multiworker", "--train_steps=2"]
    train += ["--height=32", "--width=64", '--model_options={"depth": 2}', "--base_filters=2", "--deterministic"]
    assert local_group.run_local([*train, "--batch_size=3"], 2) == 2
    refused = capfd.readouterr().err
    assert "must be divisible by the 2 devices of the 2 workers, got 3 images" in refused and "Traceback" not in refused
    assert local_group.run_local([*train, "--batch_size=4", "--accumulate_steps=2"], 2) == 0
    assert "on 2 CPUs (oneDNN" in capfd.readouterr().out and (tmp_path / "run" / "scores.json").exists()
    assert "--strategy=multiworker" in (tmp_path / "run" / "flags.txt").read_text()
