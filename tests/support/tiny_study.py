"""A study of real trainings that take seconds, and what must be the same bits however it was computed."""

import csv
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
_TEXT = """
name = "tiny"
output = {output}
seeds = 1
threads = 1
[flags]
height = 48
width = 64
batch_size = 2
keep = "last"
checkpoint_every_steps = 10
validate_every_epochs = 20
[budget]
kind = "images"
value = 600
[[models]]
name = "unet"
options = {{base_filters = 2, depth = 2}}
[[models]]
name = "runet"
options = {{base_filters = 2, depth = 2}}
[[data]]
name = "streets"
data_dir = {records}
{engines}
"""
LONG = 900  # seconds that a study may take on a busy machine
# Of a process, not of a result; a .keras file holds the time at which it was written.
_NOT_COMPARED = ("cpu_seconds", "peak_memory", "weights_sha256")


def make_records(folder):
    from kseg.data.records.prepare import prepare_dataset
    from kseg.data.synthetic.dataset import draw_cityscapes

    draw_cityscapes(folder / "source", train=40, val=4, height=48, width=64, workers=1)
    prepare_dataset("cityscapes", folder / "source", folder / "records", workers=1, progress=False)
    return folder / "records"


def write_study(path, records, engines):
    """Write a STUDY.toml and return its output folder. engines: its tables of engines."""
    output = path.with_suffix("")
    texts = {"output": f'"{output}"', "records": f'"{records}"'}
    path.write_text(_TEXT.format(engines=engines, **texts))
    return output


def start_study(toml, engine, log):
    """Start scripts/study.py as users do; its output goes to a file."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, str(ROOT / "scripts" / "study.py"), str(toml), f"--engine={engine}"]
    with open(log, "ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment)


def results(output):
    """Return what must be the same bits: rows of results.csv, counts of every image, weights."""
    with open(output / "results.csv", newline="") as file:
        rows = [{key: row[key] for key in row if key not in _NOT_COMPARED} for row in csv.DictReader(file)]
    counts = {}
    for path in sorted((output / "counts").rglob("*.npz")):
        with np.load(path) as found:
            counts[path.relative_to(output).as_posix()] = found["counts"].tolist()
    weights = {}
    for path in sorted((output / "runs").rglob("last.keras")):
        with zipfile.ZipFile(path) as file:
            weights[path.relative_to(output).as_posix()] = hashlib.sha256(file.read("model.weights.h5")).hexdigest()
    return rows, counts, weights


STARTED = []  # processes of studies, which a test that fails must not leave behind


class Study:
    """A study in a process of its own; `stop` and the like act on one run of it, named by its model."""

    def __init__(self, folder, name, engine, options):
        self.output = write_study(folder / f"{name}.toml", folder / "records", f"[engines.{engine}]\n{options}")
        self.process = None
        self._toml = folder / f"{name}.toml"
        self._engine = engine
        self._log = folder / f"{name}.txt"
        self.start()

    def start(self):
        self.process = start_study(self._toml, self._engine, self._log)
        STARTED.append(self.process)

    def text(self):
        return self._log.read_text()

    def run_log(self, model):
        return self.output / "logs" / model / "streets" / "seed-0" / "log.txt"

    def wait_for(self, condition, what):
        """Wait until something holds while the study goes on."""
        wait_until(lambda: condition() or self.process.poll() is not None, what, LONG)
        assert condition(), f"{what}; {self.text()}"

    def hold(self, model):
        """Stop a training in the middle, after its first checkpoints, and return its process."""
        run = self.output / "runs" / model / "streets" / "seed-0"
        before = set(run.glob("checkpoints/step-*.npz"))
        self.wait_for(lambda: set(run.glob("checkpoints/step-*.npz")) - before, f"a checkpoint of {model}")
        pid = int((run / ".lock").read_text().split()[1])
        os.kill(pid, signal.SIGSTOP)
        assert not (run / "scores.json").exists()
        return pid

    def finish(self):
        assert self.process.wait(LONG) == 0, self.text()
        return results(self.output)


def wait_until(condition, what, seconds=60):
    """Wait until a condition holds, and return what it gave; TimeoutError that says what was waited for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError(f"waited {seconds} seconds in vain for {what}")
