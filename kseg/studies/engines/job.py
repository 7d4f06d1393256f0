"""A run of a study as engines see it: commands, one after another, whose output goes to one file."""

import os
import pathlib
import socket
import subprocess
import time
from typing import NamedTuple

_POLL_SECONDS = 0.2
STOPPED = (143, -15)  # exit codes of a process that SIGTERM ended: one that handled it, one that did not


class Job(NamedTuple):
    """A run of a study: its name, the commands that make it, one after another, and the file of their output."""

    name: str
    commands: tuple[list[str], ...]
    log: pathlib.Path


def start(command, log, **options):
    """Start one command of a job, its output at the end of the log. options: of subprocess.Popen."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, **options)


def note(log, text):
    """Add a line to a job's log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def run_on_node(job, folder, environment=None, stopped=lambda: False):
    """Run a job's commands on a machine of a cluster, to the end or to the first that fails.

    An exception, such as the KeyboardInterrupt by which Ray cancels, passes SIGTERM on to the command and waits for it.

    Args:
        job: Job. folder: that its paths are relative to. environment: of the commands; None: this process'.
        stopped: whether this process has been told to stop, so that no further command begins.
    Returns:
        the exit code.
    """
    log = pathlib.Path(folder) / job.log
    note(log, f"On {socket.gethostname()}, process {os.getpid()}:")
    for command in job.commands:
        if stopped():
            return STOPPED[0]
        process = start(command, log, cwd=folder, env=environment)
        try:
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)  # Ray's interrupt is seen between two lines of Python alone
        except BaseException:
            process.terminate()
            process.wait()
            raise
        code = process.returncode
        if code:
            return code
    return 0
