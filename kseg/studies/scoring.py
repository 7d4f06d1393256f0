"""Score a finished run on a split, in a process of its own: its counts per image and its row of results.csv."""

import json
import pathlib
import sys

import numpy as np

from kseg import __version__
from kseg.evaluation.evaluate import open_for
from kseg.evaluation.one_pass import split_pass
from kseg.inference.loading import as_model
from kseg.inference.predictor import predictor
from kseg.inference.provenance import provenance
from kseg.io.errors import InputError
from kseg.io.files import sha256_of
from kseg.metrics.bootstrap import ImageCounts
from kseg.metrics.boundaries import checked_pair
from kseg.metrics.objects import ObjectScores
from kseg.metrics.scores import ScoreCounts
from kseg.runs.workdir import FLAGS_FILE, RunFolder
from kseg.studies import usage
from kseg.studies.kept_maps import kept_images, prediction_path, truth_path, write_map
from kseg.studies.run_counts import CURVE, RunCounts, counts_path, write_counts

_COSTS = ("parameters", "multiply_adds", "images_seen", "cpu_seconds", "peak_memory")


def score_run(request):
    """Score the weights that a run kept, or a fixed model, on each split, and write their counts.

    Args:
        request: dict of output, model, data, seed, data_dir, splits, left_out (the group that train lacks, "") and maps
            (whether maps of a few images are kept: `kseg.studies.kept_maps`). Of a run: workdir, usage (folder of its
            accounts) and facts: batch_size, steps, parameters and multiply_adds. Of a fixed model: file, and settings:
            label_set and label_space.
    Raises:
        InputError: the run did not train the steps of its budget; a fixed model that does not fit the data.
    """
    if "file" in request:
        origin = provenance(request["file"])
        hashes = {name: origin[name] for name in ("weights_sha256", "flags_sha256")}
        model = as_model(request["file"])
        print(f"{request['file']}: {getattr(model, 'reads', 'Keras')}", flush=True)
        _score(request, model, request["settings"], dict.fromkeys(_COSTS), hashes, curve=None)
        return
    folder = RunFolder(pathlib.Path(request["workdir"]))
    settings = folder.stored()
    facts = request["facts"]
    history = folder.read_history()
    done = int(history[-1]["step"])
    if done != facts["steps"]:
        raise InputError(f"{folder.workdir} must have trained {facts['steps']} steps, its budget, but did {done}.")
    weights = folder.kept_model(settings.get("keep", "best"))
    cost = {
        "parameters": facts["parameters"],
        "multiply_adds": facts["multiply_adds"],
        "images_seen": done * facts["batch_size"],
        **usage.total(request["usage"]),
    }
    hashes = {
        "weights_sha256": sha256_of(str(weights)),
        "flags_sha256": sha256_of(str(folder.workdir / FLAGS_FILE)),
    }
    _score(request, as_model(weights), settings, cost, hashes, _curve(history, facts["batch_size"]))


def _score(request, loaded, settings, cost, hashes, curve):
    """Write the counts of a model on each split. settings: label_set and label_space, where they are there."""
    for split in request["splits"]:
        model, source = open_for(
            loaded,
            request["data_dir"],
            split,
            settings.get("label_set"),
            settings.get("label_space"),
        )
        where = {name: request[name] for name in ("model", "data", "seed")}
        scores, counted = _scored(source, model, request, split)
        row = {
            **where,
            "split": split,
            **({"left_out": request["left_out"]} if request["left_out"] else {}),
            **scores.values(),
            **cost,
            "manifest_sha256": source.manifest.digest,
            **hashes,
            "kseg_version": __version__,
        }
        found = RunCounts(
            names=source.split.names,
            classes=source.label_set.classes,
            drive=source.manifest.drive,
            row=row,
            palette=np.array(source.label_set.palette, np.uint8),
            curve=curve,
            **counted,
        )
        write_counts(counts_path(request["output"], **where, split=split), found)


def _scored(source, model, request, split):
    """Return the Scores of a model on a split, and what RunCounts holds of each image; write the maps that are kept."""
    labels = source.label_set
    images = ImageCounts()
    scores = ScoreCounts(labels.classes)
    objects = ObjectScores(labels.classes, distance_edges=None)
    found = []
    kept = ()
    if request["maps"]:
        kept = kept_images(len(source))
    with source.readable_errors():
        for scene in split_pass(source, [predictor(model)], progress=True, title=f"score {split}"):
            (prediction,) = scene.predictions
            images.add([scores.add(scene.truth, prediction)])
            found.append(objects.update(scene.truth, prediction, scene.instances))
            if scene.index in kept:
                truth, ids, _ = checked_pair(scene.truth, prediction, len(labels.classes))
                where = [request[name] for name in ("model", "data", "seed")]
                path = truth_path(request["output"], request["data"], split, scene.index)
                write_map(path, truth, labels.palette)
                write_map(prediction_path(request["output"], *where, split, scene.index), ids, labels.palette)
    counted = {
        "counts": images.array(),
        "objects": objects.of_chosen_source(np.stack(found)),
        "swallowed": objects.swallowed(),
        "size_edges": np.array(objects.size_edges),
        "overlap": np.array(objects.overlap),
    }
    return scores.scores(len(source)), counted


def _curve(history, batch_size):
    """Return float64 (epochs, 3), the columns of CURVE, from the rows of history.csv."""
    rows = [{**row, "images": row["step"] * batch_size} for row in history]
    return np.array([[row.get(name, np.nan) for name in CURVE] for row in rows])


def main():
    """Score what the first argument says, a request in JSON; what is wrong with it ends as a line, not a traceback."""
    try:
        score_run(json.loads(sys.argv[1]))
    except InputError as error:
        sys.exit(f"error: {error}")
