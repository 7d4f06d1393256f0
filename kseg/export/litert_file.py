"""LiteRT: a TFLite file for phones and small devices."""

import pathlib
import tempfile
import zipfile

from kseg.export.converters import converter_of, converting
from kseg.export.savedmodel import save
from kseg.export.serving import Serving


def write(model, path, quantize=None, calibration=None):
    """Write a model as a TFLite file.

    Args:
        model: keras.Model that gives logits. path: of the file. quantize: None, "float16" or "int8".
        calibration: for int8, what gives images uint8 (1, H, W, 3).
    """
    import tensorflow as tf

    converter_of("ai_edge_litert", "litert")  # for the proof
    with tempfile.TemporaryDirectory(prefix="kseg-export-") as folder:
        save(Serving(model), folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8":
            converter.representative_dataset = lambda: ([image] for image in calibration())
        with converting("TFLite"):
            made = converter.convert()
    pathlib.Path(path).write_bytes(made)


def embed(path, texts):
    """Put text files inside, {name: text}: a zip archive at the end of the file, which runtimes leave unread."""
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
