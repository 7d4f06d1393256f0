"""torchmetrics' five scores as one collection, which shares what they have in common."""

import numpy as np
import torch
import torchmetrics
from torchmetrics import classification

from benchmarks.peers import scenes


def five(folder, num_classes):
    """Macro accuracy, recall, specificity, F1 and Jaccard of decoded training ids."""
    pairs = [tuple(map(torch.from_numpy, np.load(path))) for path in scenes.files(folder, "five")]
    kinds = ("Accuracy", "Recall", "Specificity", "F1Score", "JaccardIndex")
    options = {"num_classes": num_classes, "average": "macro", "ignore_index": 255, "validate_args": False}
    metrics = torchmetrics.MetricCollection(
        [getattr(classification, f"Multiclass{kind}")(**options) for kind in kinds], compute_groups=True
    )

    def run():
        metrics.reset()
        for truth, prediction in pairs:
            metrics.update(prediction[None], truth[None])
        return float(metrics.compute()["MulticlassJaccardIndex"])

    return run, {"images": len(pairs), "score": run()}


CASES = {"five": five}


def versions():
    """What runs here."""
    return {"torchmetrics": torchmetrics.__version__, "PyTorch": torch.__version__}
