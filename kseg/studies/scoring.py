"""Score a finished run on a split, in a process of its own: its counts per image and its row of results.csv."""

import json
import pathlib
import sys

from kseg import __version__
from kseg.evaluation.evaluate import open_for
from kseg.evaluation.one_pass import split_pass
from kseg.inference.loading import as_model
from kseg.inference.predict import predictor
from kseg.io.errors import InputError
from kseg.io.files import sha256_of
from kseg.metrics.bootstrap import ImageCounts
from kseg.metrics.scores import ScoreCounts
from kseg.runs.workdir import RunFolder
from kseg.studies import usage
from kseg.studies.run_counts import RunCounts, counts_path, write_counts


def score_run(request):
    """Score the weights that a run kept on each split, and write their counts.

    Args:
        request: dict of workdir, output, model, data, seed, data_dir, splits, left_out (the group that train lacks,
            ""), usage (folder of the run's accounts) and facts: batch_size, steps, parameters and multiply_adds.
    Raises:
        InputError: the run did not train the steps of its budget.
    """
    folder = RunFolder(pathlib.Path(request["workdir"]))
    settings = folder.stored()
    facts = request["facts"]
    done = int(folder.read_history()[-1]["step"])
    if done != facts["steps"]:
        raise InputError(f"{folder.workdir} must have trained {facts['steps']} steps, its budget, but did {done}.")
    weights = folder.kept_model(settings.get("keep", "best"))
    model = as_model(weights)
    cost = {
        "parameters": facts["parameters"],
        "multiply_adds": facts["multiply_adds"],
        "images_seen": done * facts["batch_size"],
        **usage.total(request["usage"]),
    }
    for split in request["splits"]:
        source = open_for(model, request["data_dir"], split, settings.get("label_set"), settings.get("label_space"))
        images = ImageCounts()
        scores = ScoreCounts(source.label_set.classes)
        with source.readable_errors():
            for scene in split_pass(source, [predictor(model)], progress=True, title=f"score {split}"):
                images.add([scores.add(scene.truth, scene.predictions[0])])
        where = {name: request[name] for name in ("model", "data", "seed")}
        row = {
            **where,
            "split": split,
            **({"left_out": request["left_out"]} if request["left_out"] else {}),
            **scores.scores(len(source)).values(),
            **cost,
            "manifest_sha256": source.manifest.digest,
            "weights_sha256": sha256_of(str(weights)),
            "kseg_version": __version__,
        }
        found = RunCounts(
            counts=images.array(),
            names=source.split.names,
            classes=source.label_set.classes,
            drive=source.manifest.drive,
            row=row,
        )
        write_counts(counts_path(request["output"], **where, split=split), found)


def main():
    """Score what the first argument says, a request in JSON."""
    score_run(json.loads(sys.argv[1]))
