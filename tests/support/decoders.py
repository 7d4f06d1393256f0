"""The decoders that take any encoder and run on every backend, narrow, with weights that any backend can draw."""

import numpy as np

from kseg.models import build_model

DECODERS = ("unet", "resunet", "runet", "r2unet", "deeplabv3plus", "fpn", "segformer")
PORTABLE = ("unet", "r2unet", "deeplabv3plus", "fpn", "segformer")  # every block of theirs is in one of these


def image(shape):
    """Random pixels, the same in every process."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")


def build(name, encoder, size, **options):
    """A decoder on an encoder of four base filters, for three classes."""
    return build_model(name, (*size, 3), 3, encoder=encoder, base_filters=4, **options)


def logits(name):
    """The logits of a decoder on VGG16 whose weights come from NumPy, for free sizes."""
    model = build(name, "vgg16", (None, None))
    random = np.random.default_rng(1)
    for weight in model.weights:
        if weight.path.endswith("kernel"):
            fan_in = np.prod(weight.shape[:-1])
            weight.assign(random.normal(0, (2 / fan_in) ** 0.5, weight.shape))
        elif "seed" not in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return np.asarray(model(image((1, 32, 64, 3))))
