"""What an exported model carries: small text files inside it, such as the names of its classes.

A SavedModel is a folder, in which they lie. An ONNX file has them in its metadata, by their names. A TFLite file ends
in a zip archive of them, as TensorFlow Lite's own tools pack labels (`unzip -l model.tflite` lists them).
"""

import io
import json
import pathlib
import zipfile

from kseg.inference.outside.file_kinds import ONNX, TFLITE, fields
from kseg.io.files import reading

CLASSES = "classes.json"
REPORT = "report.json"
_METADATA = 14  # the field of ModelProto that has pairs of key and value
_MOST_BYTES = 1 << 24


def carried_table(path, kind, name=CLASSES):
    """Return the JSON object that an exported model carries under a name; None if kseg did not write one.

    Args:
        path: of the model. kind: ONNX or TFLITE of `file_kinds`; any other is a folder.
    """
    read = {ONNX: _of_onnx, TFLITE: _of_tflite}.get(kind, _of_folder)
    with reading(path):
        text = read(pathlib.Path(path), name)
    try:
        table = json.loads(text or b"")
    except (ValueError, RecursionError):
        return None
    if not isinstance(table, dict) or "kseg_version" not in table:
        return None
    return table


def _of_folder(path, name):
    file = path / name
    return file.read_bytes() if file.is_file() else None


def _of_onnx(path, name):
    with open(path, "rb") as file:
        for number, wire, start, length in fields(file, path.stat().st_size) or ():
            if number == _METADATA and wire == 2 and length < _MOST_BYTES:
                file.seek(start)
                pair = file.read(length)
                parts = {}
                for key, _, at, size in fields(io.BytesIO(pair), len(pair)) or ():
                    parts[key] = pair[at : at + size]
                if parts.get(1) == name.encode():
                    return parts.get(2)
    return None


def _of_tflite(path, name):
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(name).file_size < _MOST_BYTES:
                return archive.read(name)
    except (zipfile.BadZipFile, KeyError):
        pass
    return None
