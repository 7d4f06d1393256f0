"""The commands of a study without training: measure, train and score by simple rules; `study` is the script with them.

`in_process` is an engine that calls them here, for tests that need no processes.

KSEG_FAKE is a folder: calls.txt there gets a line a call, a file "break-RUN" makes a training fail, while "slow" is
there trainings wait in their lock.
"""

import contextlib
import json
import os
import pathlib
import sys
import time

import numpy as np

from kseg.data.records.manifest import load_manifest
from kseg.io.files import locked, write_json
from kseg.studies.run_counts import FIXED, RunCounts, counts_path, write_counts
from kseg.studies.run_lock import wait_until_free

MULTIPLY_ADDS = {"small": 100, "large": 250}
BATCH = 4
IMAGES = 24
GROUPS = 12


def programs():
    return {name: [sys.executable, __file__, name] for name in ("check", "measure", "train", "score")}


def fake_counts(model, seed):
    """Two classes, 100 pixels of each in every image; "large" has ten more of both right, a seed one more or less, a
    fixed model five."""
    right = 60 + (10 if model == "large" else 0)
    right += 5 if seed == FIXED else seed % 3
    counts = np.empty((IMAGES, 3, 2), np.int64)
    counts[:, 0] = 100
    counts[:, 1] = right + np.arange(IMAGES)[:, None] % 4
    counts[:, 2] = 100  # what one class misses the other gets
    return counts


def flag_values(arguments):
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments)


def note(text):
    with open(folder() / "calls.txt", "a") as file:
        file.write(f"{text}\n")


def folder():
    return pathlib.Path(os.environ["KSEG_FAKE"])


def check():
    keeps = {name: flag_values(given).get("keep", "best") for name, _, _, given in json.load(sys.stdin)}
    json.dump({name: {"keep": keep, "batch_size": BATCH} for name, keep in keeps.items()}, sys.stdout)


def measure(output, timed, *arguments):
    flags = flag_values(arguments)
    note(f"measure {flags['model']}")
    if flags["model"] not in MULTIPLY_ADDS:
        sys.exit(f"no model {flags['model']}")
    facts = {
        "parameters": 7,
        "multiply_adds": MULTIPLY_ADDS[flags["model"]],
        "batch_size": BATCH,
        "manifest": load_manifest(flags["data_dir"]).digest,
    }
    if timed:
        facts["seconds_per_step"] = 0.3
    write_json(output, facts)


def train(usage, workdir, *arguments):
    flags = flag_values(arguments)
    workdir = pathlib.Path(workdir)
    name = f"{flags['model']}-{flags['seed']}"
    note(f"train {name} {flags['train_steps']}")
    wait_until_free(workdir, usage)
    with locked(workdir):
        while (folder() / "slow").exists():
            time.sleep(0.02)
        if (folder() / f"break-{name}").exists():
            print("step 7\nThe loss is nan.\n")
            sys.exit(3)
        (workdir / "flags.txt").write_text("--model=x\n")
        (workdir / "threads.txt").write_text(os.environ.get("TF_NUM_INTRAOP_THREADS", ""))
        write_json(workdir / "scores.json", {})
    write_json(pathlib.Path(usage) / "usage-1.json", {"cpu_seconds": 2.5, "peak_memory": 1000})


def score(text):
    request = json.loads(text)
    note(f"score {request['model']}-{request['seed']}")
    if (folder() / f"break-score-{request['model']}").exists():
        sys.exit("error: a file is missing")
    where = {name: request[name] for name in ("model", "data", "seed")}
    left_out = {}
    drives = "drive"
    if request["left_out"]:
        note(f"left out {request['left_out']}, records {load_manifest(request['data_dir']).options['left_out']}")
        left_out = {"left_out": request["left_out"]}
        drives = f"drive{request['left_out']}"
    for split in request["splits"]:
        cost = {}
        if request["seed"] != FIXED:
            cost = {"parameters": 7, "multiply_adds": request["facts"]["multiply_adds"], "cpu_seconds": 2.5}
            cost |= {"images_seen": request["facts"]["steps"] * BATCH, "peak_memory": 1000}
        found = RunCounts(
            counts=fake_counts(request["model"], request["seed"]),
            names=tuple(f"{drives}{i % GROUPS}_{i:04}" for i in range(IMAGES)),
            classes=("road", "sky"),
            drive="(drive[0-9]+)_.*",
            row={**where, "split": split, **left_out, **cost},
        )
        write_counts(counts_path(request["output"], **where, split=split), found)


def in_process(jobs, started):
    for job in jobs:
        started(job)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        code = 0
        with open(job.log, "a") as log, contextlib.redirect_stdout(log):
            for _, _, name, *arguments in job.commands:
                try:
                    COMMANDS[name](*arguments)
                except SystemExit as error:
                    code = error.code
                    break
        yield job, code


COMMANDS = {"check": check, "measure": measure, "train": train, "score": score}


def run_study(toml):
    from kseg.commands import study_command
    from kseg.studies import study  # SciPy takes longer than all else here

    study.PROGRAMS.update(programs())
    sys.argv = ["study.py", toml]
    study_command.main()


if __name__ == "__main__":
    {**COMMANDS, "study": run_study}[sys.argv[1]](*sys.argv[2:])
