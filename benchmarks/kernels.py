"""The suite "kernels": kseg's training loop and evaluation with each choice of kernels and allocator, and PyTorch."""

import contextlib
import functools
import sys
import tempfile

from benchmarks import report
from benchmarks.processes import Worker, alternate
from kseg.data.records.prepare import prepare_dataset
from kseg.data.synthetic.dataset import draw_cityscapes
from kseg.io.runtime import ALLOCATOR, ONEDNN

OURS, PYTORCH = "benchmarks.peers.ours", "benchmarks.peers.pytorch"
MODELS = ("segnet_aspp", "r2unet", "unet")
WAYS = {
    f"kseg, oneDNN {kernels}, {allocator}": {ONEDNN: onednn, ALLOCATOR: bfc}
    for kernels, onednn in (("off", "0"), ("on", "1"))
    for allocator, bfc in (("as it comes", "false"), ("BFC", "true"))
}
# What is trained: the quickstart's width and size, and the paper's. `repeats`: steps of a measured turn.
SIZES = {
    "full": {
        "narrow": {"base_filters": 8, "height": 96, "width": 192, "repeats": 10},
        "full width": {"base_filters": 64, "height": 128, "width": 256, "repeats": 1},
    },
    "tiny": {"narrow": {"base_filters": 2, "height": 64, "width": 64, "repeats": 1}},
}
BATCH, IMAGES, CLASSES = 2, 4, 19  # of a step, of an evaluation, of Cityscapes


def measure(result, torch_python, progress):
    """Add rows to `result` (of `suites.run`): seconds of a step, its peak memory, seconds to evaluate an image.

    Every contestant of a network is a process of its own that lives while the others do; they take turns.
    """
    for width, size in SIZES[result["size"]].items():
        with tempfile.TemporaryDirectory() as folder:
            records = _write_records(folder, size["height"], size["width"])
            for model in MODELS:
                _compare(result, model, width, size, records, torch_python, progress)


def _write_records(folder, height, width):
    """Streets drawn at the network's size: 8 to train on, IMAGES to evaluate."""
    draw_cityscapes(f"{folder}/drawn", train=8, val=IMAGES, height=height, width=width, workers=1)
    prepare_dataset("cityscapes", f"{folder}/drawn", f"{folder}/records", workers=1, progress=False)
    return f"{folder}/records"


def _compare(result, model, width, size, records, torch_python, progress):
    case = f"{model}, {width}: {size['base_filters']} filters, {size['height']}x{size['width']}"
    network = {
        "model": model,
        "base_filters": size["base_filters"],
        "height": size["height"],
        "width": size["width"],
        "num_classes": CLASSES,
    }
    with contextlib.ExitStack() as stack:
        workers = {}
        for who, variables in WAYS.items():
            workers[who] = stack.enter_context(Worker(OURS, **variables))
            result["versions"]["kseg"] = workers[who].versions
        try:
            workers["PyTorch"] = stack.enter_context(Worker(PYTORCH, torch_python or sys.executable))
            result["versions"]["PyTorch"] = workers["PyTorch"].versions
        except ModuleNotFoundError as error:
            result["missing"]["PyTorch"] = f"{error.name} is not installed (pip install 'kseg[bench]')"
        facts = {}
        for who, worker in workers.items():
            progress(f"{case}: {who}")
            data = {} if who == "PyTorch" else {"records": records}
            facts[who] = worker.prepare("step", "training_loop", batch=BATCH, **network, **data)
        if len({fact["parameters"] for fact in facts.values()}) > 1:
            raise RuntimeError(f"{case} must be one network, but the parameters are {facts}.")
        runs = {who: functools.partial(worker.run, "step", size["repeats"]) for who, worker in workers.items()}
        steps = alternate(runs, result["rounds"], warmups=2, progress=progress)
        peaks = {who: worker.peak() for who, worker in workers.items()}
        for who, worker in workers.items():
            data = {"images": IMAGES} if who == "PyTorch" else {"records": records}
            worker.prepare("evaluation", "evaluation", **network, **data)
        runs = {who: functools.partial(worker.run, "evaluation") for who, worker in workers.items()}
        whole = alternate(runs, result["rounds"], warmups=1, progress=progress)
        images = {who: [seconds / IMAGES for seconds in values] for who, values in whole.items()}
    for who in workers:
        # The ratio is the other way round than in other suites: each of ours to the one peer.
        row = report.row(case, who, steps[who], None) | {"peak_bytes": peaks[who], "evaluation": images[who]}
        if "PyTorch" in workers and who != "PyTorch":
            row["to_pytorch"] = report.ratio(steps[who], steps["PyTorch"])
            row["evaluation_to_pytorch"] = report.ratio(images[who], images["PyTorch"])
        result["rows"].append(row)
