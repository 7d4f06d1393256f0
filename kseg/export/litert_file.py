"""LiteRT: a TFLite file for phones and small devices."""

import pathlib
import tempfile
import zipfile

from kseg.export.converters import converting
from kseg.export.savedmodel import save
from kseg.export.serving import Serving

_FLOAT = ("ABS", "BATCH_MATMUL", "DIV", "MAXIMUM", "RESIZE_BILINEAR", "SOFTMAX", "SUB", "SUM")


def write(model, path, quantize=None, calibration=None):
    """Write a model as a TFLite file.

    Args:
        model: keras.Model that gives logits. path: of the file. quantize: None, "float16" or "int8".
        calibration: for int8, what gives images uint8 (1, H, W, 3).
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory(prefix="kseg-export-") as folder:
        save({"serving_default": Serving(model).function()}, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        if quantize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        with converting("TFLite"):
            made = _in_int8(converter, calibration) if quantize == "int8" else converter.convert()
    pathlib.Path(path).write_bytes(made)


def _in_int8(converter, calibration):
    """Return the file with all in 8 bits that can be, but the resizing of images and logits, and the softmax."""
    import tensorflow as tf

    lite = tf.lite.experimental
    converter.representative_dataset = lambda: ([image] for image in calibration())
    options = lite.QuantizationDebugOptions(denylisted_ops=list(_FLOAT))
    debugger = lite.QuantizationDebugger(
        converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
    )
    return debugger.get_nondebug_quantized_model()


def embed(path, texts):
    """Put text files inside, {name: text}: a zip archive at the end of the file, which runtimes leave unread."""
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
