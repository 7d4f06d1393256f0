"""The engine of one machine: one job after another, several at once on its cores, or one for each GPU."""

import collections
import contextlib
import os
import shutil
import subprocess
import time

from kseg.io.errors import InputError
from kseg.studies.engines.job import start

GPUS = "CUDA_VISIBLE_DEVICES"
_POLL_SECONDS = 0.1


class _Place:
    """Where one job at a time runs: a GPU, or some of the cores; empty where it may use all there is."""

    def __init__(self, gpu=None, cores=()):
        self._environment = {}
        if gpu is not None:
            self._environment[GPUS] = gpu
        self._cores = cores

    def start(self, command, log):
        with _only_on(self._cores):
            return start(
                command,
                log,
                env={**os.environ, **self._environment},
                start_new_session=True,  # Ctrl-C reaches the study alone, which then stops its runs in good order
            )


@contextlib.contextmanager
def _only_on(cores):
    """A block in which this thread, and what it starts, keeps to some cores; to all that it had if none are given."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class _Running:
    """A job on its way: the command that runs, and those that are left."""

    def __init__(self, job, place):
        self.job = job
        self.place = place
        self._left = collections.deque(job.commands)
        self.process = None
        self._next()

    def _next(self):
        self.process = self.place.start(self._left.popleft(), self.job.log)

    def ended(self):
        """Return the exit code of the job, None while it goes on."""
        code = self.process.poll()
        if code == 0 and self._left:
            self._next()
            return None
        return code


def run_local(jobs, started, *, jobs_at_once=0):
    """Run jobs as `kseg.studies.engines.ENGINES` says.

    jobs_at_once: how many run together; 0: one, or one for each GPU. Without a GPU each keeps to its share of the
    cores, where the system can be told so (Linux).
    """
    waiting = collections.deque(jobs)
    free = _places(jobs_at_once)
    running = []
    try:
        while waiting or running:
            while waiting and free:
                running.append(_Running(waiting.popleft(), free.pop(0)))
                started(running[-1].job)
            time.sleep(_POLL_SECONDS)
            for one in list(running):
                code = one.ended()
                if code is not None:
                    running.remove(one)
                    free.append(one.place)
                    yield one.job, code
    finally:
        for one in running:
            one.process.terminate()  # a training saves its step first
        for one in running:
            one.process.wait()


def _places(count):
    """Return a _Place for each job that may run at once."""
    names = gpus()
    if names:
        if count > len(names):
            raise InputError(f"jobs_at_once of local must be at most the {len(names)} GPUs, got {count}. Leave it out.")
        return [_Place(gpu=name) for name in names[: count or None]]
    if count < 2:
        return [_Place()]
    found = cores()
    if count > len(found):
        raise InputError(f"jobs_at_once of local must be at most the {len(found)} cores of this machine, got {count}.")
    if not hasattr(os, "sched_setaffinity"):
        return [_Place() for _ in range(count)]
    return [_Place(cores=found[i * len(found) // count : (i + 1) * len(found) // count]) for i in range(count)]


def cores():
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def gpus():
    """Return the GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them; none without NVIDIA's driver."""
    if GPUS in os.environ:
        return [name for name in os.environ[GPUS].split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.split() if asked.returncode == 0 else []
