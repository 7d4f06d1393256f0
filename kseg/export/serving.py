"""The graph that every format gets: images of any size in, labels and confidence of their size out.

No batch norm that can be folded is in it. For converters it holds nothing but operations that each of them has: no
antialiased resize of TensorFlow's (ScaleAndTranslate), no repeat for interpolation by nearest.
"""

import contextlib
import unittest.mock

import keras

from kseg.export.folding import Folding
from kseg.inference.logits import first_maximum, logits_at

INPUT = "images"
OUTPUTS = ("labels", "confidence", "probabilities")


class Serving:
    """A model's graph for a format, float32 where it is portable.

    images uint8 (B, H, W, 3), RGB -> {"labels": uint8 (B, H, W), "confidence": float32 (B, H, W), the probability of
    the label's class, "probabilities": float32 (B, H, W, C), of all classes}.

    Args:
        model: keras.Model that gives logits, as in `kseg.inference.logits.logits_at`.
        portable: whether a converter is to understand it; else TensorFlow runs it, by the operations that Keras calls.
    """

    def __init__(self, model, portable=True):
        import tensorflow as tf

        self.model = in_float32(model) if portable else model
        self.portable = portable
        self.spec = tf.TensorSpec((None, None, None, 3), tf.uint8, name=INPUT)
        self.folding = Folding(tensorflow=not portable)
        if not _is_mixed(self.model):
            with self._layers():
                self.folding.find(self._predict, self.spec)

    def function(self, outputs=OUTPUTS, spec=None, before=None):
        """Return a tf.function with an input signature.

        Args:
            outputs: what it gives. before: what turns its input into images, None: they are it.
        """
        import tensorflow as tf

        def predict(given):
            with self._layers(), self.folding.applied():
                found = self._predict(before(given) if before else given)
            return {name: found[name] for name in outputs}

        # The argument's name is the input's in every format.
        def images(images):
            return predict(images)

        def encoded(encoded):
            return predict(encoded)

        return tf.function(encoded if before else images, input_signature=[spec or self.spec], autograph=False)

    def _layers(self):
        """A block in which the model's layers are those of the format."""
        return _portable_layers() if self.portable else contextlib.nullcontext()

    def _predict(self, images):
        return answers(self.model, images, self.portable)


def answers(model, images, portable=True):
    """Return what an export gives for images (B, H, W, 3)."""
    import tensorflow as tf

    height, width = tf.unstack(tf.shape(images)[1:3])
    resize = {"resize": portable_resize} if portable else {}
    logits = logits_at(model, images, height, width, **resize)
    probabilities = tf.nn.softmax(logits)
    return {
        "labels": tf.cast(first_maximum(logits), tf.uint8),
        "confidence": tf.reduce_max(probabilities, axis=-1),
        "probabilities": probabilities,
    }


def portable_resize(images, height, width, antialias=False, interpolation="bilinear"):
    """Do what `kseg.inference.resizing.resized` does, the antialiased resize as two products of matrices."""
    import tensorflow as tf

    if not antialias:
        return tf.image.resize(images, (height, width), method=interpolation)
    shape = tf.shape(images)
    planes = tf.transpose(images, (0, 3, 1, 2))  # (B, 3, h, w)
    planes = tf.matmul(triangle_filter(shape[1], height), planes)
    planes = tf.matmul(planes, triangle_filter(shape[2], width), transpose_b=True)
    resized = tf.transpose(planes, (0, 2, 3, 1))
    sides = [side if isinstance(side, int) else None for side in (height, width)]
    return tf.ensure_shape(resized, (None, *sides, images.shape[-1]))


def triangle_filter(size, new_size):
    """Return the matrix (new_size, size) of TensorFlow's antialiased bilinear resize along one side.

    A row has the weights of the old pixels in a new one: a triangle around its centre, as wide as two new pixels and at
    least as two old ones, which sums to 1 (tf.image.resize, antialias=True).
    """
    import tensorflow as tf

    ratio = tf.cast(size, tf.float32) / tf.cast(new_size, tf.float32)
    # Whole numbers and divisions, no products and sums of fractions, which LiteRT would compute in 8 bits.
    centres = tf.cast((2 * tf.range(new_size) + 1) * size, tf.float32) / tf.cast(2 * new_size, tf.float32)
    pixels = tf.cast(2 * tf.range(size) + 1, tf.float32) / 2.0
    distances = tf.abs(pixels[None] - centres[:, None]) / tf.maximum(ratio, 1.0)
    weights = tf.maximum(1.0 - distances, 0.0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


@contextlib.contextmanager
def _portable_layers():
    """A block in which Keras' interpolation is TensorFlow's: LiteRT cannot run its own where the size is free."""
    import tensorflow as tf

    call = keras.layers.UpSampling2D.call

    def upsample(self, inputs):
        if self.interpolation not in ("nearest", "bilinear") or self.data_format != "channels_last":
            return call(self, inputs)
        shape = tf.shape(inputs)
        sides = [
            (known or shape[axis]) * factor
            for axis, (known, factor) in enumerate(zip(inputs.shape[1:3], self.size, strict=True), 1)
        ]
        return tf.image.resize(inputs, sides, method=self.interpolation)

    with unittest.mock.patch.object(keras.layers.UpSampling2D, "call", upsample):
        yield


def in_float32(model):
    """Return a model that computes in float32: itself, or a copy of one that was trained in mixed precision."""
    if not _is_mixed(model):
        return model
    config = _without_mixed(keras.saving.serialize_keras_object(model))
    copy = keras.saving.deserialize_keras_object({**config, "compile_config": None})
    copy.set_weights(model.get_weights())
    return copy


def compute_dtype(model):
    """Return the type in which a model computes: "float32", or of one in mixed precision "bfloat16" or "float16"."""
    found = {layer.compute_dtype for layer in model._flatten_layers()}
    return next((name for name in ("bfloat16", "float16") if name in found), "float32")


def _is_mixed(model):
    return compute_dtype(model) != "float32"


def _without_mixed(config):
    """Replace every mixed precision policy in a config by float32."""
    if isinstance(config, dict):
        return {name: _without_mixed(value) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(map(_without_mixed, config))
    if isinstance(config, str) and config in ("mixed_bfloat16", "mixed_float16"):
        return "float32"
    return config
