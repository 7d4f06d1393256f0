"""A model as other programs take it. A format is one entry of EXPORTERS, from which --format and its help follow."""

import importlib
from typing import NamedTuple


class Exporter(NamedTuple):
    """A format.

    module: has `write(model, path, quantize, calibration)` and `embed(path, texts)`. It is imported when it is used: it
    needs Keras, while --help does not.
    kind: what `kseg.inference.outside.file_kinds` calls it. suffix: of its file, "" for a folder. quantize: which
    smaller types of number it can hold. default: which of them it holds if nobody says. Of a folder: own: pattern of
    the paths in it, beside its texts; last: the file in it without which it is not complete. server: which server takes
    the folder that --layout=server makes of it (`kseg.export.layouts`), "" for none. converters: the packages that
    make it of a Keras model. needs: what the extra of its name brings and it does not work without: those, and the
    runtime that proves it.
    """

    module: str
    kind: str
    suffix: str
    help: str
    quantize: tuple = ()
    default: str | None = None
    own: str = ""
    last: str = ""
    server: str = ""
    converters: tuple = ("tensorflow",)
    needs: tuple = ()

    @property
    def functions(self):
        """The module."""
        return importlib.import_module(self.module)


EXPORTERS = {
    "savedmodel": Exporter(
        "kseg.export.savedmodel",
        "SavedModel",
        "",
        "TensorFlow's SavedModel, a folder",
        own=r"(saved_model|fingerprint|keras_metadata)\.pb|assets/|variables/(variables\.[\w.-]+)?",
        last="saved_model.pb",
        server="TensorFlow Serving",
    ),
    "onnx": Exporter(
        "kseg.export.onnx_file",
        "ONNX",
        ".onnx",
        "a file for ONNX Runtime and many others",
        ("float16", "int8"),
        server="Triton Inference Server",
        converters=("tensorflow", "tf2onnx", "onnx"),
        needs=("tf2onnx", "onnx", "onnxruntime"),
    ),
    "litert": Exporter(
        "kseg.export.litert_file",
        "TFLite",
        ".tflite",
        "a file for LiteRT (TensorFlow Lite) on phones and small devices",
        ("float16", "int8"),
        needs=("ai_edge_litert",),
    ),
    "web": Exporter(
        "kseg.export.web_folder",
        "web page",
        "",
        "a folder with a page that labels photographs, videos and the camera in any browser, without a network",
        ("float16", "int8"),
        "float16",
        own=r"index\.html|(model|runtime)\.js",
        last="index.html",
        converters=("tensorflow", "tf2onnx", "onnx"),
        needs=("tf2onnx", "onnx", "selenium"),
    ),
}

LAYOUTS = ("plain", "server")  # how the files of an export lie: as its program opens them, or as its server takes them
