"""Where a contestant comes from: the hashes by which a report can say which one it scored."""

import hashlib
import os
import pathlib

import keras

from kseg.inference.hub import local_path
from kseg.inference.outside.description import describe_file
from kseg.inference.outside.file_kinds import KSEG, SEEDS, seed_runs
from kseg.io.files import sha256_of
from kseg.io.hash_list import sha256_of_content
from kseg.runs.workdir import FLAGS_FILE, RunFolder


def provenance(model):
    """Return path, weights_sha256, flags_sha256, description_sha256 and map of a contestant; None for what it has not.

    The weights of a path are the bytes of the file that is opened (of a run: the one that it kept), of a folder its
    content (`io.hash_list.sha256_of_content`); those of a keras.Model without a file are its arrays; those of an
    ensemble are the hashes of its models' weights, in their order.

    Args:
        model: path that `load_model` takes, keras.Model, or a list of those.
    """
    found = {"path": None, "flags_sha256": None, "description_sha256": None, "map": None}
    if isinstance(model, (list, tuple)):
        return {**found, "weights_sha256": _of_all(model)}
    if not isinstance(model, (str, os.PathLike)):
        digest = hashlib.sha256()
        for weight in model.weights:
            digest.update(keras.ops.convert_to_numpy(weight).tobytes())
        return {**found, "weights_sha256": digest.hexdigest()}
    described = describe_file(local_path(model))
    file = pathlib.Path(described.file)
    if described.kind == SEEDS:
        return {**found, "path": os.fspath(model), "weights_sha256": _of_all(seed_runs(file))}
    run = file if file.is_dir() else file.absolute().parent
    if described.kind == KSEG and (run / FLAGS_FILE).exists():
        found["flags_sha256"] = sha256_of(str(run / FLAGS_FILE))
    if described.kind == KSEG and file.is_dir():
        file = RunFolder(file).stored_model()
    if described.path is not None:
        found["description_sha256"] = sha256_of(str(described.path))
    if described.class_map is not None:
        found["map"] = described.class_map.pairs
    return {**found, "path": os.fspath(model), "weights_sha256": sha256_of_content(file)}


def _of_all(models):
    hashes = [provenance(model)["weights_sha256"] for model in models]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
