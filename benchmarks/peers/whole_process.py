"""Whole Python processes, from start to exit, as a contestant."""

import platform
import subprocess
import sys


def process(arguments):
    """Run `python ARGUMENTS` and wait for its end."""

    def run():
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"python {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")

    return run, {"peak_bytes": 0, "empty_bytes": 0}  # what was measured of memory is the waiting process's


CASES = {"process": process}


def versions():
    """What runs here."""
    return {"Python": platform.python_version()}
