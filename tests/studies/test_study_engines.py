"""The engines without a cluster: their options, what they ask of it, what they make of its answers."""

import contextlib
import json
import os
import pathlib
import socket
import sys
import threading
import time

import pytest
from tiny_study import wait_until

from kseg.io.errors import InputError
from kseg.io.files import locked
from kseg.studies import run_lock
from kseg.studies.engines import ENGINES, check_engines, slurm
from kseg.studies.engines.job import Job, run_on_node
from kseg.studies.engines.local import cores
from kseg.studies.engines.ray import run_ray
from kseg.studies.engines.slurm import run_slurm
from kseg.studies.run_lock import wait_until_free


def job(tmp_path, name, *programs):
    return Job(name, tuple([sys.executable, "-c", program] for program in programs), tmp_path / name / "log.txt")


def nothing(_):
    pass


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ("slurm", "engines must be tables [engines.NAME], got 'slurm'."),
        ({"pbs": {}}, "engines must be one of local, slurm, ray, got 'pbs'."),
        ({"slurm": 3}, "engines.slurm must be a table, got 3."),
        ({"slurm": {"queue": "long"}}, "Unknown key 'queue' of engines.slurm. Known are partition, account,"),
        ({"slurm": {"minutes": 0}}, "minutes of engines.slurm must be a whole number of at least 1, got 0."),
        ({"slurm": {"gpus": -1}}, "gpus of engines.slurm must be a whole number of at least 0, got -1."),
        ({"slurm": {"partition": 3}}, "partition of engines.slurm must be text, got 3."),
        ({"slurm": {"sbatch": ["qos"]}}, "sbatch of engines.slurm must be a table of text and numbers, got ['qos']."),
        ({"ray": {"resources": {"tpu": [1]}}}, "resources of engines.ray must be a table of text and numbers"),
        ({"local": {"jobs_at_once": True}}, "jobs_at_once of engines.local must be a whole number"),
    ],
)
def test_options_that_cannot_be_are_refused(tables, message):
    with pytest.raises(InputError) as error:
        check_engines(tables)
    assert message in str(error.value)


def test_options_that_can_be_are_kept():
    tables = {"slurm": {"minutes": 30, "sbatch": {"qos": "long"}, "partition": "gpu"}, "local": {}}
    assert check_engines(tables) == tables


@pytest.mark.parametrize(("engine", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path, engine, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"needs (submitit|Ray): pip install 'kseg\[{engine}\]'"):
        next(ENGINES[engine]([job(tmp_path, "one", "pass")], nothing))


@pytest.mark.skipif(len(cores()) < 2 or not hasattr(os, "sched_setaffinity"), reason="needs two cores, and Linux")
def test_local_runs_several_at_once_each_on_its_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    before = os.sched_getaffinity(0)
    meet = (  # each waits for the other: one after another they would never end
        "import os, pathlib, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "(folder / f'here-{os.getpid()}').touch()\n"
        "while len(list(folder.glob('here-*'))) < 2: time.sleep(.01)\n"
        "print(*os.sched_getaffinity(0))\n"
    )
    jobs = [job(tmp_path, "one", meet, "import os; print(*os.sched_getaffinity(0))"), job(tmp_path, "two", meet)]
    assert {code for _, code in ENGINES["local"](jobs, nothing, jobs_at_once=2)} == {0}
    first, again = jobs[0].log.read_text().splitlines()
    (second,) = jobs[1].log.read_text().splitlines()
    assert first == again and not set(first.split()) & set(second.split())
    assert set(map(int, first.split() + second.split())) == before
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(("visible", "most"), [("-1", f"the {len(cores())} cores of this machine"), ("0,3", "2 GPUs")])
def test_local_refuses_more_at_once_than_there_are_places(tmp_path, monkeypatch, visible, most):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(InputError, match=most):
        next(ENGINES["local"]([job(tmp_path, "one", "pass")], nothing, jobs_at_once=5000))


def test_a_node_runs_commands_in_turn_from_the_studys_folder(tmp_path, monkeypatch):
    here = tmp_path / "study"
    here.mkdir()
    relative = Job(
        "one",
        job(tmp_path, "one", "import os; print(os.getcwd(), os.environ['A'])").commands * 2,
        pathlib.Path("log.txt"),
    )
    assert run_on_node(relative, here, {**os.environ, "A": "1"}) == 0
    first, *others = (here / "log.txt").read_text().splitlines()
    assert first == f"On {socket.gethostname()}, process {os.getpid()}:"
    assert others == [f"{here} 1"] * 2
    bad = job(tmp_path, "bad", "print('a'); raise SystemExit(4)", "print('b')")
    assert run_on_node(bad, here) == 4 and "b\n" not in bad.log.read_text()
    assert run_on_node(job(tmp_path, "told", "print('a')"), here, stopped=lambda: True) == 143
    assert "a\n" not in (tmp_path / "told" / "log.txt").read_text()


def test_a_training_waits_for_another_on_a_machine_that_the_lock_does_not_reach(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").write_text("process 7 on another-machine")
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) < 4:  # the other one writes an account, then it is gone
            (tmp_path / "usage-1-7.json").write_text("{" + " " * len(slept) + "}")
            os.utime(tmp_path / "usage-1-7.json", (len(slept), len(slept)))

    monkeypatch.setattr(run_lock.time, "sleep", sleep)
    wait_until_free(run, tmp_path, silent=20)
    assert slept == [20] * 4
    assert f"{run} was in use by process 7 on another-machine." in capsys.readouterr().out


def test_a_training_waits_for_another_of_this_machine(tmp_path, capsys):
    run = tmp_path / "run"
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(run))
        waiting = threading.Thread(target=wait_until_free, args=(run, tmp_path))
        waiting.start()
        while "Waiting until it ends" not in (said := capsys.readouterr().out):
            time.sleep(0.01)
        assert waiting.is_alive() and f"{run} is in use by process {os.getpid()}" in said
    waiting.join(10)
    assert not waiting.is_alive()


class FakeSlurm:
    """Slurm's commands as small scripts: what is asked is noted, what squeue answers is a file."""

    def __init__(self, folder):
        self.folder = folder
        self.answer("")
        programs = {
            "sbatch": f'cat "$1" > {folder}/script; echo "Submitted batch job 7"',
            "srun": "exit 1",
            "squeue": f"cat {folder}/states",
            "scancel": f'echo "$@" >> {folder}/cancelled; : > {folder}/states',
        }
        for name, text in programs.items():
            path = folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)

    def answer(self, text):
        (self.folder / "states.new").write_text(text)
        (self.folder / "states.new").replace(self.folder / "states")

    def script(self):
        return (self.folder / "script").read_text().splitlines()

    def cancelled(self):
        path = self.folder / "cancelled"
        return path.read_text().splitlines() if path.exists() else []

    def finish(self, number, code):
        """Leave the result of a job as submitit does on its node."""
        import cloudpickle

        (sent,) = wait_until(lambda: list(self.folder.rglob(f"{number}_submitted.pkl")), f"job {number}")
        sent.with_name(f"{number}_0_result.pkl").write_bytes(cloudpickle.dumps(("success", code)))


@pytest.fixture
def fake(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="needs submitit: pip install 'kseg[slurm]'")
    folder = tmp_path / "fake"
    folder.mkdir()
    commands = FakeSlurm(folder)
    monkeypatch.setenv("PATH", f"{folder}/bin", prepend=os.pathsep)
    monkeypatch.setattr(slurm, "_ASK_SECONDS", 0)
    monkeypatch.setattr(slurm, "_POLL_SECONDS", 0.01)
    return commands


def pair(fake):
    return [job(fake.folder, name, "pass") for name in ("one", "two")]


def test_slurm_is_asked_for_an_array_with_all_options(fake):
    options = {"partition": "gpu", "account": "lab", "minutes": 90, "cpus": 4, "gpus": 1, "memory_gb": 8}
    options |= {"jobs_at_once": 1, "save_seconds": 300, "sbatch": {"qos": "long"}}
    fake.answer("7_0 PENDING\n7_1 PENDING\n")
    running = run_slurm(pair(fake), nothing, **options)
    threading.Thread(target=lambda: [fake.finish("7_0", 0), fake.finish("7_1", 3)]).start()
    assert sorted((one.name, code) for one, code in running) == [("one", 0), ("two", 3)]
    script = fake.script()
    for line in (
        "--array=0-1%1",
        "--partition=gpu",
        "--account=lab",
        "--time=90",
        "--cpus-per-task=4",
        "--gpus-per-node=1",
        "--mem=8GB",
        "--signal=TERM@300",
        "--requeue",
        "--qos=long",
    ):
        assert f"#SBATCH {line}" in script
    assert any(line.startswith("srun ") and " --cpus-per-task=4 " in line for line in script)
    assert fake.cancelled() == []


def test_slurm_without_options_asks_for_the_clusters_own(fake):
    fake.answer("7 RUNNING\n")
    threading.Thread(target=fake.finish, args=("7", 0)).start()
    assert [code for _, code in run_slurm(pair(fake)[:1], nothing)] == [0]
    names = {line.split("=")[0].removeprefix("#SBATCH --") for line in fake.script() if line.startswith("#SBATCH")}
    assert not names & {"partition", "account", "gpus-per-node", "mem", "array"}


def test_slurm_tells_what_runs_and_what_waits_again(fake):
    told = []

    def started(one):
        told.append(one.name)
        if len(told) == 1:
            fake.answer("7_0 PENDING\n7_1 PENDING\n")

    fake.answer("7_0 RUNNING\n7_1 PENDING\n")
    running = run_slurm(pair(fake), started)
    assert next(running)[1] is None and told == ["one"]
    fake.answer("7_0 RUNNING\n7_1 COMPLETED\n")
    # Nobody has seen two run, and it left no result: broken. The log says how Slurm calls that.
    two, code = next(running)
    assert (two.name, code) == ("two", 1) and told[:2] == ["one", "one"] and told[2] == "two"
    assert "Slurm ended the job 7_1 (COMPLETED)" in two.log.read_text()
    fake.finish("7_0", 0)
    assert [(one.name, code) for one, code in running] == [("one", 0)]
    assert not list(fake.folder.rglob("slurm.json"))


def test_slurm_waits_for_what_an_earlier_start_has_left_in_the_queue(fake):
    jobs = pair(fake)
    fake.answer("7_0 RUNNING\n7_1 RUNNING\n")
    first = run_slurm(jobs, nothing)
    threading.Thread(target=fake.finish, args=("7_1", 0)).start()
    assert next(first)[0].name == "two"
    # It is killed: nothing more of it is run.
    own = json.loads((jobs[0].log.parent / "slurm.json").read_text())
    assert own["id"] == "7_0"
    (fake.folder / "script").unlink()
    second = run_slurm(jobs[:1], nothing)
    fake.finish("7_0", 0)
    assert [(one.name, code) for one, code in second] == [("one", 0)]
    assert not (fake.folder / "script").exists()


def test_slurm_sends_again_what_has_ended_meanwhile(fake):
    (one, _) = pair(fake)
    one.log.parent.mkdir()
    (one.log.parent / "slurm.json").write_text(json.dumps({"id": "3", "folder": str(fake.folder)}))
    fake.answer("3 FAILED\n7 RUNNING\n")
    threading.Thread(target=fake.finish, args=("7", 0)).start()
    assert [code for _, code in run_slurm([one], nothing)] == [0]
    assert fake.script()


def test_a_study_that_ends_takes_its_jobs_out_of_the_queue(fake):
    jobs = pair(fake)
    fake.answer("7_0 RUNNING\n7_1 PENDING\n")
    running = run_slurm(jobs, lambda one: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        next(running)
    # Whoever runs saves its step (SIGTERM to its step alone); whoever waits is gone. Neither may come back.
    assert sorted(fake.cancelled()) == ["--signal=TERM 7_0", "7_1"]
    assert not list(fake.folder.rglob("slurm.json"))


def test_a_silent_controller_and_a_limit_that_is_too_short_are_refused(fake):
    with pytest.raises(InputError, match="must be more than a minute less than its 3 minutes, .* got 120"):
        next(run_slurm(pair(fake), nothing, minutes=3, save_seconds=120))
    (fake.folder / "states").unlink()
    with pytest.raises(InputError, match="controller does not answer squeue"):
        next(run_slurm(pair(fake), nothing))


@pytest.mark.parametrize(
    ("owner", "states", "restarts", "again"),
    [
        ("7", "7 RUNNING\n", "2", True),
        ("7", "7 COMPLETING\n", "0", False),  # scancel, or preemption
        ("8", "7 RUNNING\n", "0", False),  # the study has given it up
        ("7", "7 RUNNING\n", "3", False),
    ],
)
def test_a_run_goes_back_into_the_queue_only_ahead_of_its_limit(fake, monkeypatch, owner, states, restarts, again):
    stop = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    one = job(fake.folder, "one", stop)
    one.log.parent.mkdir()
    (one.log.parent / "slurm.json").write_text(json.dumps({"id": owner, "folder": "x"}))
    fake.answer(states)
    scontrol = fake.folder / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {fake.folder}/asked\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    monkeypatch.setattr(slurm.signal, "signal", lambda *_: None)
    call = slurm._OnNode(one, str(fake.folder), 3)
    if again:
        with pytest.raises(SystemExit):
            call()
        assert (fake.folder / "asked").read_text() == "requeue 7\n"
    else:
        assert call() == -15
        assert not (fake.folder / "asked").exists()


def test_no_ray_cluster_is_said(tmp_path):
    pytest.importorskip("ray", reason="needs ray: pip install 'kseg[ray]'")
    with pytest.raises(InputError, match="There is no Ray cluster at address 'auto'"):
        next(run_ray([job(tmp_path, "one", "pass")], nothing))
