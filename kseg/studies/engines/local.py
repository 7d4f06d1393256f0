"""The engine of one machine: one job after another, or one for each GPU."""

import collections
import os
import pathlib
import shutil
import subprocess
import time
from typing import NamedTuple

GPUS = "CUDA_VISIBLE_DEVICES"
_POLL_SECONDS = 0.1


class Job(NamedTuple):
    """A run of a study: its name, the commands that make it, one after another, and the file of their output."""

    name: str
    commands: tuple
    log: pathlib.Path


class _Running:
    """A job on its way: the command that runs, and those that are left."""

    def __init__(self, job, environment):
        self.job = job
        self._environment = environment
        self._left = collections.deque(job.commands)
        self.process = None
        self._next()

    def _next(self):
        self.job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.job.log, "ab") as log:
            self.process = subprocess.Popen(
                self._left.popleft(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                start_new_session=True,  # Ctrl-C reaches the study alone, which then stops its runs in good order
            )

    def ended(self):
        """Return the exit code of the job, None while it goes on."""
        code = self.process.poll()
        if code == 0 and self._left:
            self._next()
            return None
        return code


def run_local(jobs, started):
    """Run jobs as `kseg.studies.engines.ENGINES` says."""
    waiting = collections.deque(jobs)
    free = [{GPUS: gpu} for gpu in gpus()] or [{}]
    running = []
    try:
        while waiting or running:
            while waiting and free:
                environment = free.pop(0)
                job = waiting.popleft()
                running.append((_Running(job, environment), environment))
                started(job)
            time.sleep(_POLL_SECONDS)
            for pair in list(running):
                one, environment = pair
                code = one.ended()
                if code is not None:
                    running.remove(pair)
                    free.append(environment)
                    yield one.job, code
    finally:
        for one, _ in running:
            one.process.terminate()  # a training saves its step first
        for one, _ in running:
            one.process.wait()


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
