"""What `kseg export` writes, each format run by its own runtime, as `kseg.inference.outside.alone` runs it."""

import numpy as np

from benchmarks.peers import inputs
from kseg.inference.outside import alone

found = {}  # versions, of the runtime that ran


def label(kind, file, folder):
    """Labels and confidence of one image. kind: a key of `alone.OPENERS`. folder: of `benchmarks.exported_models`."""
    run, versions_of_runtime = alone.OPENERS[kind](file)
    found.update(versions_of_runtime)
    image = np.load(f"{folder}/image.npy")
    inputs.check_labels(folder, run(image)[0])
    return lambda: run(image), {}


CASES = {"label": label}


def versions():
    """What runs here."""
    return found
