"""cityscapesScripts' own loop over prediction, label and instance PNG files."""

import copy
import importlib.metadata

import numpy as np

if not hasattr(np, "in1d"):  # its release 2.3.0 calls it; NumPy 2.4 no longer has it
    np.in1d = np.isin

from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as evaluator

from benchmarks.peers import scenes


def official(folder):
    """Its loop over images, then its scores of classes and categories; quiet, and without its file."""
    predictions, labels = (list(map(str, scenes.files(folder, kind))) for kind in ("pred", "labelIds"))
    arguments = copy.copy(evaluator.args)
    arguments.quiet = True
    arguments.JSONOutput = False

    def run():
        return evaluator.evaluateImgLists(predictions, labels, arguments)["averageScoreClasses"]

    return run, {"images": len(predictions), "score": run()}


CASES = {"official": official}


def versions():
    """What runs here; the compiled extension comes only with a build from its repository (CYTHONIZE_EVAL)."""
    compiled = "compiled extension" if evaluator.CSUPPORT else "without its compiled extension"
    return {"cityscapesScripts": f"{importlib.metadata.version('cityscapesscripts')} ({compiled})"}
