"""Where the files of an export lie in a folder: as its program opens them, or as a server takes them.

TensorFlow Serving takes a folder with a folder for each version, FOLDER/1/saved_model.pb. Triton Inference Server takes
a model repository, FOLDER/NAME/config.pbtxt beside FOLDER/NAME/1/model.onnx.
"""

import re
import shutil

from kseg.export.triton import CONFIG, triton_config
from kseg.inference.outside.carried_files import CLASSES, REPORT
from kseg.inference.outside.file_kinds import ONNX, SAVED_MODEL
from kseg.runs.model_card import CARD_FILE

VERSION = "1"
_TEXTS = "|".join(map(re.escape, (CLASSES, REPORT, CARD_FILE)))
_TRITON = rf"[\w.-]+/({re.escape(CONFIG)}|{VERSION}/(model\.onnx)?)?"


def own_paths(exporter):
    """Return the pattern of the paths in a folder that kseg exported, of either layout."""
    parts = [_TEXTS]
    if exporter.own:
        parts.append(exporter.own)
    if exporter.kind == SAVED_MODEL:
        parts.append(rf"{VERSION}/({_TEXTS}|{exporter.own})?")
    if exporter.kind == ONNX:
        parts.append(_TRITON)
    return re.compile("|".join(parts))


def last_of(exporter, name):
    """Return what must be in a folder of layout "server" for it to be complete. name: of the model."""
    return {SAVED_MODEL: VERSION, ONNX: name}[exporter.kind]


def lay_out(made, folder, exporter, name, facts):
    """Copy a written model into an empty folder as its server takes it.

    Args:
        made: pathlib.Path of the model. name: of the model for the server. facts: of its classes (classes.json).
    """
    if exporter.kind == SAVED_MODEL:
        shutil.copytree(made, folder / VERSION)
        return
    place = folder / name / VERSION
    place.mkdir(parents=True)
    shutil.copyfile(made, place / f"model{exporter.suffix}")
    (folder / name / CONFIG).write_text(triton_config(name, facts), encoding="utf-8")
