"""Starts a group of workers on this machine."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

_GRACE = 30.0  # seconds between asking a process to end and ending it: it may have something to save


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
