"""Studies on a real Slurm cluster of two nodes, which are this machine: results are those of the local engine."""

import os
import signal
import subprocess
import sys

import pytest
import slurm_cluster
from tiny_study import Study, wait_until

from kseg.io.errors import InputError
from kseg.studies.engines import slurm
from kseg.studies.engines.job import Job
from kseg.studies.engines.slurm import run_slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing() or "-"),
]


@pytest.fixture
def cluster(tmp_path):
    pytest.importorskip("submitit")
    (tmp_path / "slurm").mkdir()
    with slurm_cluster.slurm_cluster(tmp_path / "slurm") as nodes:
        yield nodes


def queue():
    """{job: (state, node)} of all that is on its way."""
    asked = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i %T %N"], capture_output=True, text=True, check=True
    )
    return {line.split()[0]: tuple(line.split()[1:]) for line in asked.stdout.splitlines()}


def job_of(study, model):
    """The job that owns a run, and its node."""
    number = slurm._owner(study.run_log(model))["id"]
    return number, queue()[number][1]


def starts(study, model):
    """How often a run was started on a node."""
    return study.run_log(model).read_text().count(", process ")


def test_nodes_without_power_and_out_of_sight(studies, expected, cluster):
    study = Study(studies, "nodes", "slurm", "minutes = 20\n")
    held = study.hold("unet"), study.hold("runet")
    # The node of unet loses its power: its run goes back into the queue, and starts anew where there is a node.
    _, node = job_of(study, "unet")
    cluster[node].lose_power()
    study.wait_for(lambda: "\nunet/streets/seed-0 waits" in study.text(), "unet to wait")
    # That of runet is out of sight, but alive: its run is started a second time, and must wait for the first.
    _, other = job_of(study, "runet")
    cluster[other].unplug()
    study.wait_for(lambda: "runet/streets/seed-0 waits" in study.text(), "runet to wait")
    cluster[node].start()
    log = study.run_log("runet")
    study.wait_for(lambda: "Waiting until it ends" in log.read_text(), "the second runet to wait for the first")
    os.kill(held[1], signal.SIGCONT)
    assert study.finish() == expected
    assert starts(study, "unet") == starts(study, "runet") == 2
    assert "Going on from step" in study.run_log("unet").read_text()
    assert "is finished, nothing to train" in log.read_text()
    cluster[other].start()


def test_a_run_saves_ahead_of_its_time_limit_and_goes_on(studies, expected, cluster):
    study = Study(studies, "limit", "slurm", "minutes = 20\nsave_seconds = 120\n")
    study.hold("runet")
    number, _ = job_of(study, "runet")
    set_limit(number, minutes_so_far(number) + 2)
    log = study.run_log("runet")
    # Slurm wakes a process that was stopped, too.
    study.wait_for(
        lambda: "Stopped ahead of its time limit: back into the queue." in log.read_text(), "the end of the limit"
    )
    wait_until(lambda: queue()[number][0] == "PENDING", "the job to wait")  # while it ends, nothing of it can change
    set_limit(number, 20)
    assert study.finish() == expected
    log = log.read_text()
    assert "the run stops when its files are safe" in log and "Going on from step" in log
    assert starts(study, "runet") == 2 and starts(study, "unet") == 1


def set_limit(number, minutes):
    subprocess.run(["scontrol", "update", f"JobId={number}", f"TimeLimit={minutes}"], check=True)


def minutes_so_far(number):
    asked = subprocess.run(
        ["squeue", "--noheader", f"--jobs={number}", "--Format=TimeUsed"], capture_output=True, text=True, check=True
    )
    return int(asked.stdout.strip().split(":")[-2])


def test_a_study_that_was_killed_finds_its_jobs_and_one_that_is_told_to_stop_ends_them(studies, expected, cluster):
    study = Study(studies, "killed", "slurm", "minutes = 20\n")
    held = study.hold("unet")
    study.process.kill()
    study.process.wait()
    study.start()
    study.wait_for(lambda: study.text().count("\nunet/streets/seed-0 started") == 2, "the second start to find unet")
    assert len(list(study.output.glob("logs/slurm/*_submission.sh"))) == 1  # nothing was sent again
    os.kill(held, signal.SIGCONT)
    study.process.send_signal(signal.SIGTERM)
    assert study.process.wait(300) == 143
    assert queue() == {}
    assert "the run stops when its files are safe" in study.run_log("unet").read_text()
    study.start()
    assert study.finish() == expected
    assert starts(study, "unet") == 2


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(slurm, "_ASK_SECONDS", 1)


def test_what_fails_is_not_started_again(cluster, quick, tmp_path):
    def job(name, program):
        return Job(name, ([sys.executable, "-c", program],), tmp_path / name / "log.txt")

    jobs = [
        job("good", "print('well')"),
        job("bad", "import sys; print('no'); sys.exit(4)"),
        job("cancelled", "import time; print('now', flush=True); time.sleep(600)"),
    ]
    started = []
    ended = {}
    for one, code in run_slurm(jobs, lambda one: started.append(one.name), minutes=10, jobs_at_once=1):
        ended[one.name] = code
        if len(ended) == 2:
            wait_until(lambda: jobs[2].log.exists() and "now" in jobs[2].log.read_text(), "the last job")
            number = slurm._owner(jobs[2].log)["id"]
            subprocess.run(["scancel", number], check=True)
    assert ended["good"] == 0 and ended["bad"] == 4
    assert ended["cancelled"] != 0 and queue() == {}
    assert sorted(started) == ["bad", "cancelled", "good"]
    assert (tmp_path / "bad" / "log.txt").read_text().count("no\n") == 1


def test_what_sbatch_refuses_is_said_in_its_words(cluster, tmp_path):
    job = Job("one", ([sys.executable, "-c", "pass"],), tmp_path / "one" / "log.txt")
    with pytest.raises(InputError, match="sbatch refused the jobs: .*[Pp]artition"):
        next(run_slurm([job], lambda _: None, partition="moon"))
