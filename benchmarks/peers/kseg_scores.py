"""kseg's scores of predictions in memory; truth and instances are PNG bytes, as records hold them."""

import concurrent.futures
import os

import numpy as np

import kseg
from benchmarks.peers import scenes
from kseg.io import images
from kseg.metrics import confusion_matrix, five_scores
from kseg.metrics.cityscapes_scores import CityscapesCounts


def official(folder):
    """Cityscapes' scores; the next images are decoded in threads meanwhile, as `kseg.evaluate` does."""
    predictions = [images.decode_label(path.read_bytes(), path.name)[0] for path in scenes.files(folder, "pred")]
    encoded = [
        (label.read_bytes(), instances.read_bytes())
        for label, instances in zip(scenes.files(folder, "labelIds"), scenes.files(folder, "instanceIds"), strict=True)
    ]
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())

    def decode(pair):
        return images.decode_label(pair[0], "label")[0], images.decode_instances(pair[1], "instances")

    def run():
        counts = CityscapesCounts()
        for prediction, truth in zip(predictions, pool.map(decode, encoded), strict=True):
            counts.add(prediction, *truth)
        return counts.scores(len(predictions)).mean_iou

    return run, {"images": len(predictions), "score": run()}


def five(folder, num_classes):
    """The five macro scores of decoded training ids."""
    pairs = [np.load(path) for path in scenes.files(folder, "five")]

    def run():
        matrix = sum(confusion_matrix(*pair, num_classes)[0] for pair in pairs)
        return five_scores(matrix, "macro")["jaccard"]

    return run, {"images": len(pairs), "score": run()}


CASES = {"official": official, "five": five}


def versions():
    """What runs here."""
    return {"kseg": kseg.__version__, "NumPy": np.__version__}
