"""What tests of encoders share: models of their maps, weights that hide nothing, and a small decoder."""

import re

import keras
import numpy as np

from kseg.layers.upsampling import UpSampling2D
from kseg.models import common
from kseg.models.backbones import encode, load_encoder

# EfficientNet-Lite's stages with one block each and without the two that change nothing of the stride: fast to train.
SHORT = ((1, 3, 1, 1, 16), (1, 3, 2, 6, 24), (1, 5, 2, 6, 40), (1, 3, 2, 6, 80), (1, 5, 2, 6, 112))


def build(encoder, shape, **options):
    """(model of all maps, their strides)."""
    image, maps = encode(encoder, shape, **options)
    return keras.Model(image, list(maps.values())), list(maps)


def randomize(model, seed=1):
    """Biases, scales and statistics that are not the initial ones, and layer scales that let their block count."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith(("gamma", "moving_variance")) or "layer_scale" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif not weight.path.endswith("kernel"):
            weight.assign(random.normal(0, 0.2, weight.shape))


def by_layer(model):
    """{name of layer: its arrays}, of layers inside layers too; a norm that Keras counted has no number."""
    layers = [layer for layer in model._flatten_layers() if layer.weights and not isinstance(layer, keras.Model)]
    return {re.sub(r"^(layer_normalization)_\d+$", r"\1", layer.name): layer.get_weights() for layer in layers}


def names_of(model):
    """The names of what gives a model's outputs."""
    return [tensor._keras_history.operation.name for tensor in model.outputs]


def close(ours, theirs, tolerance=1e-4):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape and theirs.std() > 0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def with_scores(
    input_shape,
    num_classes,
    *,
    encoder="efficientnet_lite0",
    output_stride=32,
    encoder_weights=None,
    name="with_scores",
):
    """A builder: an encoder and 1x1 scores of its deepest map, upsampled."""
    image, maps = encode(encoder, input_shape, output_stride=output_stride)
    x = common.logits(maps[output_stride], num_classes, initializer="he_normal")
    x = UpSampling2D(output_stride, interpolation="bilinear", dtype="float32", name="upsampling")(x)
    model = keras.Model(image, x, name=name)
    if encoder_weights:
        load_encoder(model, encoder, encoder_weights)
    return model
