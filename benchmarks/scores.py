"""The suite "scores": scoring predictions of synthetic streets, kseg and the packages that others use."""

import contextlib
import functools
import pathlib
import sys
import tempfile

import numpy as np

from benchmarks import report
from benchmarks.processes import Worker, alternate
from kseg.data.datasets import cityscapes
from kseg.data.synthetic.scene import draw_street
from kseg.io import images as codec

OURS = "benchmarks.peers.kseg_scores"
# case: who, its module, what to install where it is missing
PEERS = {
    "official": ("cityscapesScripts", "benchmarks.peers.cityscapes_scripts", "cityscapesscripts"),
    "five": ("torchmetrics", "benchmarks.peers.torchmetrics_scores", "torchmetrics"),
}
SIZES = {"full": {"images": 8, "height": 1024, "width": 2048}, "tiny": {"images": 2, "height": 96, "width": 128}}
GOALS = [
    report.Goal("official", "time", "cityscapesScripts", 1 / 3),
    report.Goal("five", "time", "torchmetrics", 1 / 5),
]
_CLASSES = 19


def measure(result, torch_python, cityscapes_python, progress):
    """Add rows to `result` (of `suites.run`): seconds an image, the same images and equal scores for all."""
    pythons = {"official": cityscapes_python, "five": torch_python}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        write_scenes(folder, **SIZES[result["size"]])
        ours = stack.enter_context(Worker(OURS))
        result["versions"]["kseg"] = ours.versions
        for case, (who, module, package) in PEERS.items():
            workers = {"kseg": ours}
            try:
                workers[who] = stack.enter_context(Worker(module, pythons[case] or sys.executable))
                result["versions"][who] = workers[who].versions
            except ModuleNotFoundError as error:
                result["missing"][who] = f"{error.name} is not installed (pip install {package})"
            options = {"folder": folder} | ({"num_classes": _CLASSES} if case == "five" else {})
            facts = {name: worker.prepare(case, case, **options) for name, worker in workers.items()}
            _check_equal(case, facts)
            runs = {name: functools.partial(worker.run, case) for name, worker in workers.items()}
            seconds = alternate(runs, result["rounds"], warmups=1, progress=progress)
            each = {name: [value / facts[name]["images"] for value in seconds[name]] for name in workers}
            result["rows"] += [report.row(case, name, each[name], each["kseg"]) | facts[name] for name in workers]


def write_scenes(folder, images, height, width):
    """Write PNG files of drawn streets: the truth, its instances, and as a prediction the truth moved by 5 and 7."""
    table = cityscapes.info().label_set("train_ids").table
    for seed in range(images):
        _, label, instances = draw_street(seed, height, width)
        prediction = np.roll(label, (7, 5), (0, 1))
        stem = f"street_{seed:06}_000019"
        for kind, array in {"pred": prediction, "gtFine_labelIds": label, "gtFine_instanceIds": instances}.items():
            (pathlib.Path(folder) / f"{stem}_{kind}.png").write_bytes(codec.encode(array))
        truth, predicted = table[label], table[prediction]
        predicted[predicted == 255] = 0  # a network predicts a class everywhere
        np.save(pathlib.Path(folder) / f"{stem}_five.npy", np.stack([truth, predicted]))


def _check_equal(case, facts):
    scores = [fact["score"] for fact in facts.values()]
    if max(scores) - min(scores) > 1e-6:  # torchmetrics adds in float32
        raise RuntimeError(f"{case}: the contestants do not score alike: {facts}")
