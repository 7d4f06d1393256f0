"""SavedModel: a folder for TensorFlow, from an image's bytes or pixels to labels of its own size."""

import pathlib

from kseg.export.converters import quiet
from kseg.export.serving import Serving
from kseg.io.errors import FileAccessError


def write(model, path, quantize=None, calibration=None):
    """Write a model as a SavedModel folder.

    Signatures: `serving_default`: images uint8 (B, H, W, 3) -> labels uint8 (B, H, W), confidence float32 (B, H, W),
    the softmax of the label. `encoded`: PNG or JPEG files of one size, strings (B,) -> the same; a batch of one is
    `[bytes]`. It decodes the pixels as they are stored: TensorFlow cannot turn a photograph by its EXIF orientation as
    `kseg.predict` does, so turn it before you send it (phones write such files). Files of several sizes, of other
    formats and CMYK JPEG are an error of the graph that says so.

    Args:
        model: keras.Model that gives logits. path: of the folder. quantize, calibration: None.
    """
    save(Serving(model, portable=False), str(path), encoded=True)


def embed(path, texts):
    """Put text files inside, {name: text}: files of the folder."""
    for name, text in texts.items():
        pathlib.Path(path, name).write_text(text, encoding="utf-8")


def save(serving, folder, encoded=False):
    """Write a SavedModel of the graph of `serving.Serving`.

    Args:
        folder: str. encoded: add the signature `encoded`.
    """
    import tensorflow as tf

    from kseg.data.pipeline.examples_tensorflow import decode_images

    module = tf.Module()
    functions = {"serving_default": serving.function()}
    if encoded:
        files = tf.TensorSpec((None,), tf.string, name="encoded")
        functions["encoded"] = serving.function(files, decode_images)
    signatures = {name: function.get_concrete_function() for name, function in functions.items()}
    # Those that are read: the weights that were folded away are not among them.
    module.kept = list({id(v): v for signature in signatures.values() for v in signature.graph.variables}.values())
    module.functions = functions
    try:
        with quiet():
            tf.saved_model.save(module, folder, signatures=signatures)
    except tf.errors.OpError as error:  # a full disk too
        raise FileAccessError(error.message) from error
