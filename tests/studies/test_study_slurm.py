"""Studies on a real Slurm cluster of two nodes, which are this machine: results are those of the local engine."""

import os
import pathlib
import shutil
import signal
import subprocess

import pytest
import slurm_cluster
import tiny_study
from slurm_cluster import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing()),
]
IMAGES = 600
LONG = 600  # seconds that a study may take on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    tiny_study.make_records(folder)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    """What the engine of one machine computes, two runs at once."""
    pytest.importorskip("submitit")
    toml = folder / "local.toml"
    output = tiny_study.write_study(toml, folder / "records", IMAGES, "[engines.local]\njobs_at_once = 2\n")
    assert tiny_study.start_study(toml, "local", folder / "local.txt").wait(LONG) == 0
    return tiny_study.results(output)


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "slurm"
    folder.mkdir()
    with slurm_cluster.slurm_cluster(folder) as nodes:
        yield nodes


class Study:
    """A study that runs on the cluster."""

    def __init__(self, folder, name, options=""):
        self.toml = folder / f"{name}.toml"
        self.log = folder / f"{name}.txt"
        engines = f"[engines.slurm]\nminutes = 20\n{options}"
        self.output = tiny_study.write_study(self.toml, folder / "records", IMAGES, engines)
        self.process = None
        self.start()

    def start(self):
        self.process = tiny_study.start_study(self.toml, "slurm", self.log)

    def text(self):
        return self.log.read_text()

    def wait_for(self, text):
        wait_until(lambda: text in self.text() or self.process.poll() is not None, text, LONG)
        assert text in self.text()

    def wait_for_checkpoint(self, model):
        found = wait_until(lambda: tiny_study.is_under_way(self.output, model) or self.process.poll() is not None, model, LONG)
        assert found and self.process.poll() is None, self.text()

    def job(self, model):
        """The id of a run's job, and the node on which it runs."""
        asked = subprocess.run(
            ["squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i %N"],
            capture_output=True,
            text=True,
            check=True,
        )
        nodes = dict(line.split() for line in asked.stdout.splitlines())
        own = self.run_log(model).with_name("slurm.json").read_text()
        return next((number, node) for number, node in nodes.items() if f'"{number}"' in own)

    def run_log(self, model):
        return self.output / "logs" / model / "streets" / "seed-0" / "log.txt"

    def finish(self):
        assert self.process.wait(LONG) == 0, self.text()
        return tiny_study.results(self.output)


def test_a_node_without_power_and_one_that_is_only_lost(folder, expected, cluster):
    study = Study(folder, "nodes")
    for model in ("unet", "runet"):
        study.wait_for_checkpoint(model)
    _, node = study.job("unet")
    cluster[node].lose_power()
    study.wait_for("unet/streets/seed-0 waits")
    cluster[node].start()
    study.wait_for_checkpoint("unet")
    assert study.finish() == expected
    log = study.run_log("unet").read_text()
    assert log.count(", process ") == 2 and "continues" in log
    assert not list(study.output.rglob("slurm.json"))


def test_a_run_goes_on_after_its_time_limit(folder, expected, cluster):
    # Slurm looks at limits twice a minute: SIGTERM comes 30 to 60 seconds before two minutes are over, or a little later.
    study = Study(folder, "limit", "save_seconds = 60\n".replace("60", "30"))
    for model in ("unet", "runet"):
        study.wait_for_checkpoint(model)
    number, _ = study.job("runet")
    subprocess.run(["scancel", "--signal=TERM", number], check=True)  # what Slurm does ahead of the limit
    assert study.finish() == expected
    log = study.run_log("runet").read_text()
    assert "Stopped ahead of its time limit: back into the queue." in log
    assert log.count(", process ") == 2
