"""What all models have in common: normalised images at the start, float32 scores at the end, encoder weights."""

import keras

from kseg.io.errors import InputError, check_divides
from kseg.layers.preprocessing import Preprocess
from kseg.layers.upsampling import UpSampling2D
from kseg.models.pretrained import weights

# RGB mean and scale in units of 0..255. "imagenet" gives way to those of the encoder weights that are loaded.
NORMALIZATIONS = {
    "imagenet": (weights.IMAGENET_MEAN, weights.IMAGENET_SCALE),
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
}


def image_input(input_shape, multiple, normalization="imagenet"):
    """The Input and its normalisation.

    Args: `input_shape`: (H, W, 3), None for free sizes. `multiple`: what H and W must be multiples of; free sizes are
        checked when images arrive. `normalization`: "imagenet", "unit" (RGB / 255), or the mean and the scale
        themselves, RGB in units of 0..255.
    Returns: (Input, normalised tensor), both (B, H, W, 3). Raises: ValueError for other sizes.
    """
    height, width, _ = input_shape
    check_divides(height, width, multiple)
    if isinstance(normalization, str):
        choose("normalization", normalization, NORMALIZATIONS)
        normalization = NORMALIZATIONS[normalization]
    mean, scale = normalization
    image = keras.Input(input_shape, name="image")
    size = (height, width) if height and width else None
    return image, Preprocess(mean, scale, multiple=multiple, size=size, name="preprocess")(image)


def logits(x, num_classes, kernel_size=1, *, initializer, transposed=False, activation=None, name="logits"):
    """Class scores in float32, also under mixed precision: (B, H, W, C) -> (B, H, W, num_classes)."""
    layer = keras.layers.Conv2DTranspose if transposed else keras.layers.Conv2D
    return layer(
        num_classes,
        kernel_size,
        padding="same",
        activation=activation,
        kernel_initializer=initializer,
        dtype="float32",
        name=name,
    )(x)


def dropout(x, rate, seed, name):
    """Dropout with a seed of its own, or nothing at rate 0."""
    return keras.layers.Dropout(rate, seed=seed, name=name)(x) if rate else x


def at_strides(maps, strides, encoder):
    """{stride: map}, the maps of an encoder at some strides; InputError where it has none there."""
    missing = [stride for stride in strides if stride not in maps]
    if missing:
        raise InputError(
            f"encoder must have maps of strides {', '.join(map(str, sorted(strides)))}, but "
            f"{getattr(encoder, 'name', encoder)!r} has {', '.join(map(str, sorted(maps)))}. Choose another encoder."
        )
    return {stride: maps[stride] for stride in strides}


def upsample(x, factor, name, dtype=None):
    """Bilinear interpolation to `factor` times height and width, nothing at 1; `dtype`: float32 for scores."""
    if factor == 1:
        return x
    return UpSampling2D(factor, interpolation="bilinear", dtype=dtype, name=name)(x)


def choose(option, value, choices):
    """Raise ValueError unless the value of an option is one of its choices."""
    if value not in tuple(choices):  # a list or dict is in no dict, but asking is a TypeError
        raise InputError(f"{option} must be one of {', '.join(map(str, choices))}, got {value!r}.")
