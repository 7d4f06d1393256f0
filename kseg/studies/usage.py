"""What a process uses, written to a file while it runs: a process that is killed has left its last account."""

import atexit
import json
import os
import pathlib
import threading
import time

from kseg.io.files import write_json
from kseg.io.runtime import peak_memory

SECONDS = 5  # between two accounts


def record(folder):
    """Write this process' CPU seconds and peak memory to a file of its own in `folder`, now and then and at its end."""
    path = pathlib.Path(folder) / f"usage-{time.time_ns()}-{os.getpid()}.json"
    lock = threading.Lock()

    def account():
        with lock:
            write_json(path, used())

    def keep_account():
        while True:
            time.sleep(SECONDS)
            account()

    path.parent.mkdir(parents=True, exist_ok=True)
    threading.Thread(target=keep_account, daemon=True).start()
    atexit.register(account)


def used():
    """Return the CPU seconds of this process and those it waited for, and its peak memory in bytes (None: unknown)."""
    try:
        import resource  # not on Windows
    except ImportError:
        return {"cpu_seconds": time.process_time(), "peak_memory": None}
    accounts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in accounts)
    return {"cpu_seconds": seconds, "peak_memory": peak_memory()}


def total(folder):
    """Return the same of all processes that a folder has accounts of: seconds added up, the largest memory."""
    accounts = [json.loads(path.read_bytes()) for path in sorted(pathlib.Path(folder).glob("usage-*.json"))]
    memory = [account["peak_memory"] for account in accounts if account["peak_memory"] is not None]
    return {
        "cpu_seconds": sum(account["cpu_seconds"] for account in accounts),
        "peak_memory": max(memory, default=None),
    }
