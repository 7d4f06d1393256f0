"""A study of real trainings that take seconds, and what must be the same bits however it was computed."""

import csv
import hashlib
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np

from kseg.data.records.prepare import prepare_dataset
from kseg.data.synthetic.dataset import draw_cityscapes

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
value = {images}
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
# Of a process, not of a result; a .keras file holds the time at which it was written.
_NOT_COMPARED = ("cpu_seconds", "peak_memory", "weights_sha256")


def make_records(folder):
    draw_cityscapes(folder / "source", train=40, val=4, height=48, width=64, workers=1)
    prepare_dataset("cityscapes", folder / "source", folder / "records", workers=1, progress=False)
    return folder / "records"


def write_study(path, records, images, engines=""):
    """Write a STUDY.toml and return its output folder. images: that each run sees, two a step."""
    output = path.with_suffix("")
    texts = {"output": f'"{output}"', "records": f'"{records}"'}
    path.write_text(_TEXT.format(images=images, engines=engines, **texts))
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


def is_under_way(output, model):
    """Whether a run has begun to write checkpoints and is far from its end."""
    return any((output / "runs" / model / "streets" / "seed-0" / "checkpoints").glob("step-*.npz"))
