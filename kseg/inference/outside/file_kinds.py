"""What a file or folder is that someone calls a model: by its content, never by its name alone."""

import pathlib
import re

from kseg.data.datasets.image_folders import holds_dataset
from kseg.data.datasets.listing import walk_files
from kseg.inference.label_marks import CLASSES_FILE
from kseg.io.files import reading
from kseg.runs.workdir import FLAGS_FILE

KSEG = "kseg"  # a run or a .keras file: what loading.py opens itself, or refuses
SAVED_MODEL = "SavedModel"
ONNX = "ONNX"
TFLITE = "TFLite"
WEB = "web page"  # of `kseg export --format=web`
LABEL_MAPS = "label maps"
SEEDS = "seeds"  # runs of one recipe that differ by their seed
DESCRIPTION = "description"

_FILES = (".onnx", ".tflite", ".keras")  # of a model
_OF_RUNS = ("best.keras", "last.keras")
_TEXTS = ("", ".md", ".txt", ".json", ".yaml", ".yml", ".toml")  # what people put beside a model that they share
_MOST_FIELDS = 10_000  # of an ONNX file's outermost message: a dozen, and one for each import and function
_GRAPH = 7  # the field of ModelProto that only a model has
_VERSION = 1
SEED = re.compile(r"seed-(\d+)")  # the folder of a run in a study


def kind_of(path):
    """Return what there is at a path that exists: one of the names above.

    A TFLite file says TFL3 at byte 4. An ONNX file has no mark: it is a protocol buffer whose outermost message has a
    version and a graph (onnx.proto, ModelProto). A folder of label maps holds PNG files alone, and perhaps the
    classes.json that kseg writes beside them: folders of models and runs have pictures too.
    """
    path = model_in(path)
    if path.is_dir():
        return _kind_of_folder(path)
    with reading(path), open(path, "rb") as file:
        head = file.read(8)
        if head[4:] == b"TFL3":
            return TFLITE
        if path.suffix in (".toml", ".json"):
            return DESCRIPTION
        wires = {number: wire for number, wire, *_ in fields(file, path.stat().st_size) or ()}
    if wires.get(_GRAPH) == 2 and wires.get(_VERSION) == 0:
        return ONNX
    return KSEG


def model_in(path):
    """Return the model in a folder that is none itself; any other path as it is.

    As servers take it (`kseg export --layout=server`) that is VERSION/saved_model.pb for TensorFlow Serving,
    VERSION/model.onnx for Triton, and a model repository of one such model. Of several versions it is the highest, as
    servers have it. As people share it, it is the one file of a model beside README.md and the like.
    """
    path = pathlib.Path(path)
    if not path.is_dir() or any((path / name).exists() for name in ("saved_model.pb", FLAGS_FILE)):
        return path
    saved_models = [file.parent for file in path.glob("*/saved_model.pb") if file.parent.name.isdecimal()]
    if saved_models:
        return max(saved_models, key=lambda version: int(version.name))
    files = [file for depth in ("*", "*/*") for file in path.glob(f"{depth}/model.onnx")]
    files = [file for file in files if file.parent.name.isdecimal()]
    if len({file.parent.parent for file in files}) == 1:
        return max(files, key=lambda file: int(file.parent.name))
    seen = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    models = [entry for entry in seen if entry.suffix in _FILES and entry.name not in _OF_RUNS]
    others = [entry for entry in seen if entry not in models]
    shared = len(models) == 1 and all(entry.is_file() and entry.suffix in _TEXTS for entry in others)
    return models[0] if shared else path


def _kind_of_folder(path):
    if (path / "saved_model.pb").exists():
        return SAVED_MODEL
    if all((path / name).exists() for name in ("index.html", "model.js", "runtime.js", CLASSES_FILE)):
        return WEB
    if any((path / name).exists() for name in (FLAGS_FILE, "best.keras", "last.keras")):
        return KSEG
    if seed_runs(path):
        return SEEDS
    found = KSEG
    if holds_dataset(path):
        return KSEG
    with reading(path):
        for name in walk_files(str(path)):
            if name == str(path / CLASSES_FILE):
                continue
            if not name.endswith(".png"):
                return KSEG
            found = LABEL_MAPS
    return found


def seed_runs(folder):
    """Return the run folders of a study's contestant in its folder, by their seeds: seed-0, seed-1, ..."""
    found = {int(name[1]): path for path in folder.iterdir() if (name := SEED.fullmatch(path.name))}
    return [found[seed] for seed in sorted(found) if (found[seed] / FLAGS_FILE).exists()]


def fields(file, size):
    """Return (number, wire type, offset, length) of each outermost field of a protocol buffer; None for anything else.

    Args:
        file: open for reading in binary. size: of it in bytes.
    """
    found = []
    at = 0
    for _ in range(_MOST_FIELDS):
        if at >= size:
            break
        file.seek(at)
        head = file.read(20)
        try:
            key, start = _varint(head, 0)
            number, wire = key >> 3, key & 7
            if wire == 2:
                length, start = _varint(head, start)
            elif wire == 0:
                length = _varint(head, start)[1] - start
            elif wire in (1, 5):
                length = {1: 8, 5: 4}[wire]
            else:
                return None
        except IndexError:
            return None
        if not number:
            return None
        found.append((number, wire, at + start, length))
        at += start + length
    return found if at == size and size else None


def _varint(data, at):
    """Return a number and the place behind it; IndexError if it does not end."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise IndexError("a number of more than ten bytes")
