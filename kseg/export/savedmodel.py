"""SavedModel: a folder for TensorFlow, from an image's bytes or pixels to labels of its own size."""

import pathlib

from kseg.export.converters import quiet
from kseg.export.serving import OUTPUTS, Serving
from kseg.io.errors import FileAccessError


def write(model, path, quantize=None, calibration=None):
    """Write a model as a SavedModel folder.

    Signatures: `serving_default`: images uint8 (B, H, W, 3) -> labels uint8 (B, H, W), confidence float32 (B, H, W),
    the softmax of the label. `probabilities`: images -> probabilities float32 (B, H, W, C), of all classes; servers
    answer with all outputs of a signature, so these have one of their own. `encoded`: PNG or JPEG files of one size,
    strings (B,); a batch of one is `[bytes]` -> labels, confidence. It decodes the pixels as they are stored:
    TensorFlow cannot turn a photograph by its EXIF orientation as `kseg.predict` does, so turn it before you send it
    (phones write such files). Files of several sizes, of other formats and CMYK JPEG are an error of the graph that
    says so.

    Args:
        model: keras.Model that gives logits. path: of the folder. quantize, calibration: None.
    """
    import tensorflow as tf

    from kseg.data.pipeline.examples_tensorflow import decode_images

    serving = Serving(model, portable=False)
    files = tf.TensorSpec((None,), tf.string, name="encoded")
    functions = {
        "serving_default": serving.function(OUTPUTS[:2]),
        "probabilities": serving.function(OUTPUTS[2:]),
        "encoded": serving.function(OUTPUTS[:2], files, decode_images),
    }
    save(functions, str(path))


def embed(path, texts):
    """Put text files inside, {name: text}: files of the folder."""
    for name, text in texts.items():
        pathlib.Path(path, name).write_text(text, encoding="utf-8")


def save(functions, folder):
    """Write a SavedModel of functions of `serving.Serving.function`, {signature: function}, into a folder (str)."""
    import tensorflow as tf

    module = tf.Module()
    signatures = {name: function.get_concrete_function() for name, function in functions.items()}
    # Those that are read: the weights that were folded away are not among them.
    module.kept = list({id(v): v for signature in signatures.values() for v in signature.graph.variables}.values())
    module.functions = functions
    try:
        with quiet():
            tf.saved_model.save(module, folder, signatures=signatures)
    except tf.errors.OpError as error:  # a full disk too
        raise FileAccessError(error.message) from error
