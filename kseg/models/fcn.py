"""FCN-32s, FCN-16s, FCN-8s and ParseNet: VGG16 made fully convolutional, scores upsampled."""

import functools

import keras

from kseg import blocks
from kseg.layers.normalization import ScaledL2Normalization
from kseg.layers.upsampling import BilinearInitializer, UpSampling2D
from kseg.models import common
from kseg.models.backbones import vgg
from kseg.models.pretrained import weights

MULTIPLE = 32


def fcn32s(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    dropout=0.5,
    initializer=blocks.HE_NORMAL,
    encoder_weights=None,
    seed=0,
    name="fcn32s",
):
    """FCN-32s (Long, Shelhamer and Darrell 2015, arXiv 1411.4038, sections 3.1 and 4): scores at stride 32.

    VGG16 with its dense layers as convolutions, fc6 (7x7) and fc7 (1x1), and 1x1 scores, upsampled by 32 by fixed
    bilinear interpolation. Deviations: same padding instead of 100 pixels around the image and crops; the scores start
    from the initialiser, not at zero (the paper found neither better), because zeros would stop the gradient below.

    Args: `input_shape`: (H, W, 3), multiples of 32 or None. `num_classes`: channels of the scores.
        `base_filters`: 64 in the paper; fc6 and fc7 have 64 times as many. `dropout`: rate after each of the two.
        `initializer`: of the kernels. `encoder_weights`: None, "imagenet" (VGG16 with fc6 and fc7) or a file
        (`pretrained.weights.load_encoder_weights`). `seed`: of the dropout.
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError for sizes that are not multiples of 32 or weights that do not fit.
    """
    return _fcn(
        input_shape,
        num_classes,
        functools.partial(_skips, pools=()),
        base_filters=base_filters,
        dropout=dropout,
        initializer=initializer,
        encoder_weights=encoder_weights,
        seed=seed,
        name=name,
    )


def fcn16s(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    dropout=0.5,
    initializer=blocks.HE_NORMAL,
    encoder_weights=None,
    seed=0,
    name="fcn16s",
):
    """FCN-16s (Long, Shelhamer and Darrell 2015, arXiv 1411.4038, section 4.2): adds scores of pool4 at stride 16.

    The scores at stride 32 are doubled by a learned 4x4 transposed convolution that starts as bilinear interpolation.

    Args: `base_filters`, `dropout`, `initializer`, `encoder_weights`, `seed`: as in `fcn32s`. Returns, Raises: as
        `fcn32s`.
    """
    return _fcn(
        input_shape,
        num_classes,
        functools.partial(_skips, pools=("pool4",)),
        base_filters=base_filters,
        dropout=dropout,
        initializer=initializer,
        encoder_weights=encoder_weights,
        seed=seed,
        name=name,
    )


def fcn8s(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    dropout=0.5,
    initializer=blocks.HE_NORMAL,
    encoder_weights=None,
    seed=0,
    name="fcn8s",
):
    """FCN-8s (Long, Shelhamer and Darrell 2015, arXiv 1411.4038, section 4.2): adds scores of pool3 at stride 8.

    Deviation: trained from the start, while the paper starts from a trained FCN-16s.

    Args: `base_filters`, `dropout`, `initializer`, `encoder_weights`, `seed`: as in `fcn32s`. Returns, Raises: as
        `fcn32s`.
    """
    return _fcn(
        input_shape,
        num_classes,
        functools.partial(_skips, pools=("pool4", "pool3")),
        base_filters=base_filters,
        dropout=dropout,
        initializer=initializer,
        encoder_weights=encoder_weights,
        seed=seed,
        name=name,
    )


def parsenet(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    dropout=0.5,
    initializer=blocks.HE_NORMAL,
    encoder_weights=None,
    seed=0,
    name="parsenet",
):
    """ParseNet (Liu, Rabinovich and Berg 2015, arXiv 1506.04579, section 3): FCN-32s that sees the whole image.

    fc7's map and its mean over the image are each L2-normalised over channels, with a learned scale per channel, and
    scored together (early fusion, 3.2 and 3.3). The 1x1 scores of the concatenation are computed as the sum of two
    convolutions: the image's part is one vector per image, added by broadcasting. On FCN's VGG16, as `fcn32s`, where
    the authors' released network is a dilated one.

    Args: `base_filters`, `dropout`, `initializer`, `encoder_weights`, `seed`: as in `fcn32s`. Returns, Raises: as
        `fcn32s`.
    """
    return _fcn(
        input_shape,
        num_classes,
        _context,
        base_filters=base_filters,
        dropout=dropout,
        initializer=initializer,
        encoder_weights=encoder_weights,
        seed=seed,
        name=name,
    )


def _fcn(
    input_shape,
    num_classes,
    head,
    *,
    base_filters,
    dropout,
    initializer,
    encoder_weights,
    seed,
    name,
):
    """VGG16, fc6 and fc7; `head` makes of fc7 and the dict of VGG16's maps the scores at the image's size."""
    image, x = common.image_input(input_shape, MULTIPLE)
    maps = vgg.vgg16(x, base_filters, initializer=initializer)
    x = maps["out"]  # (B, H/32, W/32, 8 * base_filters)
    for i, (key, size) in enumerate({"fc6": 7, "fc7": 1}.items()):
        x = keras.layers.Conv2D(64 * base_filters, size, padding="same", kernel_initializer=initializer, name=key)(x)
        x = keras.layers.ReLU(name=f"{key}_relu")(x)
        x = common.dropout(x, dropout, seed + i, f"{key}_dropout")
    model = keras.Model(image, head(x, maps, num_classes, initializer), name=name)
    if encoder_weights:
        weights.load_encoder_weights(model, "vgg16", encoder_weights)
    return model


def _skips(x, maps, num_classes, initializer, *, pools):
    """Doubles the scores and adds those of a shallower map, for each of `pools`; all in float32."""
    scores = common.logits(x, num_classes, initializer=initializer, name="score_fc7")
    for pool in pools:
        scores = keras.layers.Conv2DTranspose(
            num_classes,
            4,
            strides=2,
            padding="same",
            use_bias=False,
            kernel_initializer=BilinearInitializer(),
            dtype="float32",
            name=f"upsample_{pool}",
        )(scores)
        skip = common.logits(maps[pool], num_classes, initializer=initializer, name=f"score_{pool}")
        scores = keras.layers.Add(dtype="float32", name=f"add_{pool}")([scores, skip])
    return _upsample(scores, 32 // 2 ** len(pools))


def _context(x, _, num_classes, initializer):
    """ParseNet's head: scores of the normalised map plus those of the normalised mean over the image."""
    channels = x.shape[-1]
    # The mean of many bfloat16 pixels needs float32. Normalised as (B, C): of (B, 1, 1, C) tf2onnx makes a wrong graph.
    mean = keras.layers.GlobalAveragePooling2D(dtype="float32", name="mean")(x)
    mean = ScaledL2Normalization(scale=10.0, name="norm_image")(mean)
    normalized = {
        "map": ScaledL2Normalization(scale=10.0, name="norm_map")(x),
        "image": keras.layers.Reshape((1, 1, channels), name="mean_pixel")(mean),
    }
    scores = [
        keras.layers.Conv2D(
            num_classes,
            1,
            use_bias=key == "map",  # one bias for the sum
            kernel_initializer=blocks.part_initializer(initializer, channels, 2 * channels, num_classes),
            dtype="float32",
            name=f"score_{key}",
        )(value)
        for key, value in normalized.items()
    ]
    return _upsample(keras.layers.Add(dtype="float32", name="score")(scores), 32)


def _upsample(x, factor):
    return UpSampling2D(factor, interpolation="bilinear", dtype="float32", name="logits")(x)
