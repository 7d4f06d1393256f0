"""The child's side: `python -m benchmarks.worker MODULE` answers JSON requests, a line each, until its input ends.

    {"do": "prepare", "key": K, "case": NAME, "options": {...}}  ->  {"facts": {...}}
    {"do": "run", "key": K, "repeats": N}                        ->  {"seconds": mean of N runs}
    {"do": "drop", "key": K}                                     ->  {}
    {"do": "peak"}                                               ->  {"bytes": peak resident memory so far}

The first line it writes is {"versions": {...}}, or {"missing": NAME} where the framework is not installed.
Imports the standard library alone, for it runs under any interpreter.
"""

import importlib
import json
import os
import resource
import sys
import time
import traceback


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


def answer(request, cases, prepared):
    """Do what one request asks; returns what is to be sent back."""
    if request["do"] == "prepare":
        prepared[request["key"]], facts = cases[request["case"]](**request["options"])
        return {"facts": facts}
    if request["do"] == "run":
        run, repeats = prepared[request["key"]], request["repeats"]
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        return {"seconds": (time.perf_counter() - start) / repeats}
    if request["do"] == "drop":
        del prepared[request["key"]]
        return {}
    if request["do"] == "peak":
        return {"bytes": peak_bytes()}
    raise ValueError(f"Unknown request {request['do']!r}.")


def serve(module_name, lines, send):
    """Answer every line by a call of `send`; a failure is sent as {"error": traceback} and ends it."""
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] in ("benchmarks", "kseg"):
            raise
        return send({"missing": error.name})
    send({"versions": module.versions()})
    prepared = {}
    for line in lines:
        try:
            reply = answer(json.loads(line), module.CASES, prepared)
        except Exception:  # whatever it was, the parent must hear of it
            return send({"error": traceback.format_exc()})
        send(reply)


def main():
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # a library that prints must not print among the replies
    serve(sys.argv[1], sys.stdin, lambda reply: print(json.dumps(reply), file=replies))


if __name__ == "__main__":
    main()
