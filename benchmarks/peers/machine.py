"""What the memory of this machine gives: copies by one thread per core."""

import concurrent.futures
import os

import numpy as np


def copy(megabytes):
    """Copy an array onto another, each core a part. Counted: bytes read and bytes written."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    source = np.ones((threads, megabytes * 1_000_000 // threads), np.uint8)
    target = np.zeros_like(source)
    pool = concurrent.futures.ThreadPoolExecutor(threads)

    def run():
        list(pool.map(np.copyto, target, source))  # NumPy lets go of the lock while it copies

    return run, {"bytes": 2 * source.nbytes}


CASES = {"copy": copy}


def versions():
    """What runs here."""
    return {"NumPy": np.__version__}
