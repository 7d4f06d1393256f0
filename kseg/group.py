"""A group of processes that train one model together: what TF_CONFIG says of it, and starting one on this machine."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from kseg.errors import InputError

_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
_GRACE = 30.0  # seconds between asking a process to end and ending it: it may have something to save


class Group(NamedTuple):
    """Place of this process in its group: `index` of `workers`, the first being the chief."""

    index: int
    workers: int


def read_group():
    """Return the Group that the environment variable TF_CONFIG describes.

    Raises:
        ValueError: it is not set, is no JSON, names tasks that are neither chief nor worker, or none for this process.
    """
    config = _config()
    cluster, task = config.get("cluster", {}), config.get("task", {})
    names = [(kind, i) for kind in ("chief", "worker") for i in range(len(cluster.get(kind, ())))]
    place = task.get("type"), task.get("index")
    if not names:
        raise InputError(
            f"strategy multiworker needs TF_CONFIG, for example {_EXAMPLE}, on every worker with its own index. "
            "On one machine --local_workers=2 does without."
        )
    if set(cluster) - {"chief", "worker"} or place not in names:
        raise InputError(
            f"TF_CONFIG must name chief and workers only, and one of them as this process's task, got cluster "
            f"{json.dumps(cluster)} and task {json.dumps(task)}. An example: {_EXAMPLE}"
        )
    return Group(names.index(place), len(names))


def leads(strategy):
    """Whether this process writes what a run leaves: alone, or the chief of the group under "multiworker"."""
    return strategy != "multiworker" or read_group().index == 0


def check_alone(what):
    """Raise ValueError if TF_CONFIG names a group: workers that each train alone would look like one and be none."""
    cluster = _config().get("cluster", {})
    workers = sum(len(cluster.get(kind, ())) for kind in ("chief", "worker"))
    if workers > 1:
        raise InputError(
            f"Training runs on one machine ({what}), but TF_CONFIG names {workers} workers. Unset it, or take "
            "strategy multiworker."
        )


def _config():
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"TF_CONFIG must be JSON like {_EXAMPLE}, got {text!r} ({error}).") from error
    if not isinstance(config, dict) or not all(isinstance(config.get(key, {}), dict) for key in ("cluster", "task")):
        raise InputError(f"TF_CONFIG must be JSON like {_EXAMPLE}, got {text!r}.")
    return config


def run_local(command, workers):
    """Run a command as a group of processes on this machine, which meet on free loopback ports.

    The chief's output is shown. When one process fails, the others are stopped, and the last lines of its output are
    shown. SIGTERM is passed on, and Ctrl-C.

    Args:
        command: list of str. workers: how many processes.
    Returns:
        Exit code: 0 if all ended well, else that of the first that did not (128 + the number of a signal).
    """
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers)]
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(tempfile.TemporaryFile("w+b")) for _ in addresses]
        processes = []
        stack.callback(_end, processes)
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _leave))
        for index, log in enumerate(logs):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            output = {} if index == 0 else {"stdout": log, "stderr": log}
            environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
            processes.append(subprocess.Popen(command, env=environment, **output))
        failed = _wait(processes)
        if failed is None:
            return 0
        code = processes[failed].returncode
        how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
        print(f"Worker {failed} of {workers} ended by {how}: the others are stopped.", file=sys.stderr, flush=True)
        logs[failed].seek(0)
        print(logs[failed].read()[-2000:].decode(errors="replace"), file=sys.stderr, flush=True)
        return code if code > 0 else 128 - code


def _leave(number, frame):
    sys.exit(128 + number)


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:  # all bound at once, so that they differ
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait(processes):
    """Wait until all have ended well (None), or return the index of the first that has not."""
    while True:
        codes = [process.poll() for process in processes]
        for index, code in enumerate(codes):
            if code:
                return index
        if None not in codes:
            return None
        time.sleep(0.1)


def _end(processes):
    for process in processes:
        if process.poll() is None:
            process.terminate()
    limit = time.monotonic() + _GRACE
    for process in processes:
        try:
            process.wait(max(limit - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
