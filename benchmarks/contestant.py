"""The child's side: `python -m benchmarks.contestant '{"module": ..., "case": ...}'` measures one case, prints JSON.

Imports the standard library alone, for it runs under any interpreter.
"""

import importlib
import json
import os
import resource
import sys
import time


def peak_bytes():
    """Peak resident memory of this process."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            # Linux hands ru_maxrss on from parent to child; this one starts with the process.
            (peak,) = [line.split()[1] for line in file if line.startswith("VmHWM:")]
        return int(peak) * 1024
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def cpu_seconds():
    """What all cores have spent on this process and on those that it waited for."""
    return sum(os.times()[:4])


def measure(module, case, options, warmups, repeats):
    """Measure `CASES[case](**options)` of a module.

    Args:
        module: dotted name, of benchmarks/peers.
        case: a key of its `CASES`.
        options: dict of keyword arguments.
        warmups: runs before the clock starts.
        repeats: runs while it goes.
    Returns:
        dict: "seconds" and "cpu_seconds" of one run (of one image, where the facts count "images"), "peak_bytes" of the
        process and "empty_bytes" before the case was built, "versions", and the case's own facts; or {"missing": name}
        where what the module imports is not installed.
    """
    try:
        contestant = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] in ("benchmarks", "kseg"):
            raise
        return {"missing": error.name}
    empty = peak_bytes()
    run, facts = contestant.CASES[case](**options)
    for _ in range(warmups):
        run()
    parts = repeats * facts.get("images", 1)
    start = time.perf_counter()
    cpu_start = cpu_seconds()
    for _ in range(repeats):
        run()
    measured = {
        "seconds": (time.perf_counter() - start) / parts,
        "cpu_seconds": (cpu_seconds() - cpu_start) / parts,
        "peak_bytes": peak_bytes(),
        "empty_bytes": empty,
    }
    return {**measured, **facts, "versions": contestant.versions()}


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not print into the answer
    print(json.dumps(measure(**json.loads(sys.argv[1]))), file=answer)
