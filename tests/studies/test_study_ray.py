"""Studies on a Ray cluster of two nodes on this machine: results are those of the local engine."""

import os
import signal
import sys

import pytest
from tiny_study import Study

from kseg.studies.engines.job import Job
from kseg.studies.engines.ray import run_ray

ray = pytest.importorskip("ray", reason="needs ray: pip install 'kseg[ray]'")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch):
    """Ray's own cluster for tests: a head without cores, and two nodes with one each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1, resources={"first": 1})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def options(cluster):
    return f'address = "{cluster.address}"\n'


def starts(study, model):
    return study.run_log(model).read_text().count(", process ")


def node_of(cluster, study, model):
    """The node whose worker runs a job: it stands above the worker in the tree of processes."""
    worker = int(study.run_log(model).read_text().rpartition(", process ")[2].split(":")[0])
    for node in cluster.worker_nodes:
        (raylet,) = node.all_processes["raylet"]
        if raylet.process.pid in ancestors(worker):
            return node
    raise AssertionError(f"no node runs {model}")


def ancestors(pid):
    while pid > 1:
        yield pid
        with open(f"/proc/{pid}/stat") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])


def test_a_node_that_is_killed(studies, expected, cluster):
    study = Study(studies, "ray_node", "ray", options(cluster))
    study.hold("unet")
    node = node_of(cluster, study, "unet")
    cluster.remove_node(node, allow_graceful=False)
    study.wait_for(lambda: starts(study, "unet") == 2, "unet to start on the other node")
    assert study.finish() == expected
    assert starts(study, "runet") == 1


def test_a_study_that_is_told_to_stop_ends_its_tasks(studies, expected, cluster):
    study = Study(studies, "ray_stop", "ray", options(cluster))
    held = study.hold("unet")
    study.process.send_signal(signal.SIGTERM)
    os.kill(held, signal.SIGCONT)
    assert study.process.wait(300) == 143
    assert "the run stops when its files are safe" in study.run_log("unet").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(held, 0)
    study.start()
    assert study.finish() == expected


def test_what_fails_is_not_started_again_and_what_its_machine_stops_is(cluster, tmp_path):
    again = (
        "import os, pathlib, signal\n"
        f"mark = pathlib.Path({str(tmp_path)!r}) / 'mark'\n"
        "if not mark.exists():\n    mark.touch()\n    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    programs = {"good": "print('well')", "bad": "import sys; print('no'); sys.exit(4)", "stopped": again}
    jobs = [
        Job(name, ([sys.executable, "-c", program],), tmp_path / name / "log.txt") for name, program in programs.items()
    ]
    started = []
    ended = {
        one.name: code for one, code in run_ray(jobs, lambda one: started.append(one.name), address=cluster.address)
    }
    assert ended == {"good": 0, "bad": 4, "stopped": 0}
    assert sorted(started) == ["bad", "good", "stopped"]
    assert (tmp_path / "bad" / "log.txt").read_text().count("no\n") == 1
    assert (tmp_path / "stopped" / "log.txt").read_text().count(", process ") == 2
