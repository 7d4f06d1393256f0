"""The engine of a Ray cluster: a task of Ray Core for each job."""

import contextlib
import os
import signal
import threading
import time

from kseg.io.errors import InputError
from kseg.studies.engines.job import STOPPED, note, run_on_node
from kseg.studies.engines.local import GPUS

_POLL_SECONDS = 1


class _Stopped(Exception):
    """SIGTERM ended a job that nobody has cancelled: its machine goes, and Ray may start it on another."""


def _on_node(job, folder, environment, gpus):
    """What Ray runs of a job: with the study's environment, but the GPUs that Ray has chosen."""
    if gpus:
        environment = {**environment, GPUS: os.environ[GPUS]}
    code = run_on_node(job, folder, environment)
    if code in STOPPED:
        raise _Stopped
    return code


def run_ray(jobs, started, *, address="auto", cpus=1, gpus=0, resources=None, retries=100):
    """Run jobs as `kseg.studies.engines.ENGINES` says, as tasks of a Ray cluster.

    Args:
        address: of the cluster; "auto": the one that this machine is part of. cpus, gpus: of each job.
        resources: others that a job needs, by name, as its nodes were started with.
        retries: how often a job may start again when its node is lost.
    """
    ray = installed_ray()
    waiting = {job.name: _size(job.log) for job in jobs}  # a job that runs says so in its log
    with _connected(ray, address):
        task = ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            resources=resources or {},
            max_retries=retries,
            retry_exceptions=[_Stopped],
        )(_on_node)
        sent = {}
        try:
            for job in jobs:
                sent[task.remote(job, os.getcwd(), dict(os.environ), gpus)] = job
            while sent:
                time.sleep(_POLL_SECONDS)  # not in Ray's own wait, which gives SIGTERM another exit code
                done, _ = ray.wait(list(sent), num_returns=len(sent), timeout=0)
                for task_of_job, job in sent.items():
                    if job.name in waiting and (task_of_job in done or _size(job.log) > waiting[job.name]):
                        del waiting[job.name]
                        started(job)
                for task_of_job in done:
                    job = sent.pop(task_of_job)
                    yield job, _code(ray, task_of_job, job)
        finally:
            for task_of_job in sent:
                ray.cancel(task_of_job)
            if sent:
                ray.wait(list(sent), num_returns=len(sent))


def installed_ray():
    """Return the package ray; InputError where it is missing."""
    try:
        import ray
    except ImportError:
        raise InputError("The engine ray needs Ray: pip install 'kseg[ray]'.") from None
    return ray


@contextlib.contextmanager
def _connected(ray, address):
    """A block in which this process is a driver of the cluster; a connection that was there stays."""
    if ray.is_initialized():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},  # so that nodes find kseg
            log_to_driver=False,
            logging_level="error",
        )
    except (ConnectionError, ValueError) as error:
        raise InputError(
            f"There is no Ray cluster at address {address!r} ({error}). Start one with `ray start`, or correct "
            "engines.ray."
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's would end the study with another exit code
    try:
        yield
    finally:
        ray.shutdown()


def _code(ray, task_of_job, job):
    """Return the exit code of a job whose task has ended."""
    try:
        return ray.get(task_of_job)
    except _Stopped:
        return STOPPED[0]
    except ray.exceptions.RayError as error:
        note(job.log, f"Ray: {error}")
        return 1


def _size(log):
    return log.stat().st_size if log.exists() else 0
