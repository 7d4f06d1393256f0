"""SegNet and SegNet-ASPP: a VGG16 encoder and its mirror, joined by the positions of the pooling maxima."""

import functools

import keras

from kseg import blocks
from kseg.io.errors import InputError, check_whole
from kseg.layers.normalization import BatchNormalization
from kseg.layers.pooling import MaxPooling2DWithArgmax, MaxUnpooling2D
from kseg.models import common
from kseg.models.pretrained import weights

# Output channels of each convolution in units of base_filters, from block 1; the decoder runs from 5 to 1.
ENCODER = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
DECODER = ((1,), (2, 1), (4, 4, 2), (8, 8, 4), (8, 8, 8))  # block 1 has one more: the scores, or none
DECODERS = {"conv": False, "transposed": True}  # whether its convolutions are transposed ones
UNPOOLINGS = ("indices", "bilinear")
ASPP_STRIDES = (1, 8)
NORMS = ("per_conv", "shared")
# How PyTorch begins a transposed convolution of stride 1: uniform within 1 / sqrt(fan-in).
PYTORCH_UNIFORM = {
    "class_name": "VarianceScaling",
    "config": {"scale": 0.3333333333, "mode": "fan_in", "distribution": "uniform"},
}


def segnet(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    depth=5,
    decoder="conv",
    unpooling="indices",
    dropout=0.0,
    initializer=blocks.HE_NORMAL,
    encoder_weights=None,
    seed=0,
    name="segnet",
):
    """SegNet (Badrinarayanan, Kendall and Cipolla 2017, arXiv 1511.00561, figure 2): 26 convolutions.

    Args: `input_shape`: (H, W, 3), multiples of 2^depth or None. `num_classes`: channels of the scores.
        `base_filters`: 64 in the paper. `depth`: blocks of the encoder and of the decoder, the first 1 to 5 of VGG16's;
        3 or 4 (as many as the paper's SegNet-Basic has) for small images, which five poolings shrink to a few pixels.
        `decoder`: "conv" or "transposed" convolutions of stride 1.
        `unpooling`: by the "indices" of the maxima, or "bilinear" to see what indices are worth.
        `dropout`: rate around the deepest six blocks (Bayesian SegNet, arXiv 1511.02680), 0 in SegNet.
        `initializer`: of the kernels. `encoder_weights`: None, "imagenet" or a file
        (`pretrained.weights.load_encoder_weights`). `seed`: of the dropout.
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError for sizes that are not multiples of 2^depth, a depth beyond 1 to 5, an unknown decoder, or unfit
        weights.
    """
    depth = _checked_depth(depth)
    image, x = common.image_input(input_shape, 2**depth)
    x = _trunk(
        x,
        base_filters=base_filters,
        depth=depth,
        decoder=decoder,
        unpooling=unpooling,
        initializer=initializer,
        decoder_initializer=initializer,
        dropout=dropout,
        seed=seed,
    )
    x = common.logits(x, num_classes, 3, initializer=initializer, transposed=DECODERS[decoder])
    return _finish(keras.Model(image, x, name=name), encoder_weights)


def segnet_aspp(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    depth=5,
    decoder="conv",
    unpooling="indices",
    rates=(6, 12, 18),
    aspp_filters=None,
    aspp_stride=1,
    dropout=0.5,
    initializer=blocks.HE_NORMAL,
    encoder_weights=None,
    seed=0,
    name="segnet_aspp",
):
    """SegNet with ASPP on its full-resolution map (Fischer and Malhotra 2021, figure 2).

    A 3x3 convolution, batch norm and ReLU stand between ASPP and the scores; they and ASPP have `aspp_filters`
    channels. Deviation: one batch norm per convolution (the authors' code: `segnet_aspp_fischer2021`).

    Args: `rates`: ASPP's dilation rates in pixels of its map. `aspp_filters`: None for 4 * base_filters, the paper's
        256. `aspp_stride`: 1 as in the paper, or 8: ASPP is then on the decoder's map of an eighth of the image's
        height, where it keeps that map's 4 * base_filters channels. `dropout`: rate after ASPP's projection, 0 for
        none, drawn from `seed`. `base_filters`, `depth`, `decoder`, `unpooling`, `initializer`, `encoder_weights`: as
        in `segnet`. With depth 3 and aspp_stride 8, ASPP stands between encoder and decoder.
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError as `segnet`, for another aspp_stride, and for aspp_filters that do not fit it; training on a
        single image per device raises too (ASPP's pooled branch).
    """
    common.choose("aspp_stride", aspp_stride, ASPP_STRIDES)
    width = 4 * base_filters
    filters = aspp_filters or width
    if aspp_stride != 1 and filters != width:
        raise InputError(
            f"aspp_filters must be 4 * base_filters = {width} at aspp_stride={aspp_stride}, got {filters}."
        )
    pyramid = functools.partial(
        blocks.aspp,
        filters=filters,
        rates=rates,
        dropout=dropout,
        initializer=initializer,
        seed=seed,
    )
    depth = _checked_depth(depth, least=3 if aspp_stride == 8 else 1)
    image, x = common.image_input(input_shape, 2**depth)
    x = _trunk(
        x,
        base_filters=base_filters,
        depth=depth,
        decoder=decoder,
        unpooling=unpooling,
        initializer=initializer,
        decoder_initializer=initializer,
        after={aspp_stride: pyramid},
    )
    x = blocks.conv_bn_relu(x, filters, initializer=initializer, name="tail")
    x = common.logits(x, num_classes, initializer=initializer)
    return _finish(keras.Model(image, x, name=name), encoder_weights)


def segnet_aspp_fischer2021(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    decoder_convs=12,
    norm="shared",
    tail=True,
    dropout=0.5,
    initializer="glorot_normal",
    decoder_initializer=None,
    encoder_weights=None,
    seed=0,
    name="segnet_aspp_fischer2021",
):
    """SegNet-ASPP as Fischer and Malhotra train it (2021), by their code or by their text; for configs/fischer2021.

    As `segnet_aspp`, but the decoder is of transposed convolutions and images are divided by 255, whatever weights are
    loaded. With a shared batch norm, inference often scores like noise: `blocks.recurrent_conv` says why.

    Args: `decoder_convs`: 12 as in their code, or 13 as in their text, before ASPP. `norm`: "shared" as in their code,
        one batch norm for each width of the trunk (512, 256, 128, 64 channels), or "per_conv". `tail`: whether there is
        a convolution between ASPP and the scores, as in their code. `decoder_initializer`: of the decoder's kernels,
        None for PyTorch's. `base_filters`, `dropout`, `initializer`, `encoder_weights`, `seed`: as in `segnet_aspp`.
    Returns, Raises: as `segnet_aspp`.
    """
    common.choose("norm", norm, NORMS)
    common.choose("decoder_convs", decoder_convs, (12, 13))
    image, x = common.image_input(input_shape, 32, "unit")
    x = _trunk(
        x,
        base_filters=base_filters,
        decoder="transposed",
        initializer=initializer,
        decoder_initializer=decoder_initializer or PYTORCH_UNIFORM,
        norms={"per_conv": _own_norm, "shared": _norm_by_width()}[norm],
        extra_convs=decoder_convs - 12,
    )
    x = blocks.aspp(x, 4 * base_filters, dropout=dropout, initializer=initializer, seed=seed)
    if tail:
        x = blocks.conv_bn_relu(x, 4 * base_filters, initializer=initializer, name="tail")
    x = common.logits(x, num_classes, initializer=initializer)
    return _finish(keras.Model(image, x, name=name), encoder_weights, keep_preprocess=True)


def _own_norm(filters):
    """No normalisation layer to share: every convolution makes its own."""


def _norm_by_width():
    """A function that gives one and the same batch norm to all convolutions of a width."""
    norms = {}

    def norm(filters):
        if filters not in norms:
            norms[filters] = BatchNormalization(name=f"norm_{filters}")
        return norms[filters]

    return norm


def _checked_depth(depth, least=1):
    """Return a number of blocks as an int; InputError for one that VGG16 does not have, or too few for ASPP's map."""
    depth = check_whole("depth", depth, 1)
    if not least <= depth <= len(ENCODER):
        why = "aspp_stride=8 needs a map of an eighth" if depth < least else f"VGG16 has {len(ENCODER)} blocks"
        raise InputError(f"depth must be {least} to {len(ENCODER)}, got {depth}: {why}.")
    return depth


def _trunk(
    x,
    *,
    base_filters,
    depth=5,
    decoder,
    initializer,
    decoder_initializer,
    unpooling="indices",
    norms=_own_norm,
    extra_convs=0,
    dropout=0.0,
    seed=0,
    after=None,
):
    """The first `depth` blocks of VGG16 and their mirror: (B, H, W, 3) -> (B, H, W, base_filters).

    All of SegNet's convolutions but the last, and `extra_convs` of that width. `norms`: filters -> the batch norm of a
    convolution, None for its own. `dropout`: rate around the deepest six blocks. `after`: {stride: function of the
    decoder's map of that stride}.
    """
    common.choose("decoder", decoder, DECODERS)
    common.choose("unpooling", unpooling, UNPOOLINGS)
    after = after or {}
    indices = {}
    for block, widths in enumerate(ENCODER[:depth], 1):
        for i, width in enumerate(widths, 1):
            filters = width * base_filters
            name = f"block{block}_conv{i}"
            x = blocks.conv_bn_relu(x, filters, norm=norms(filters), initializer=initializer, name=name)
        x, indices[block] = MaxPooling2DWithArgmax(name=f"block{block}_pool")(x)
        if block >= 3:
            x = common.dropout(x, dropout, seed + block, f"block{block}_dropout")
    # (B, H/32, W/32, 8 * base_filters), or fewer poolings
    if 2**depth in after:
        x = after[2**depth](x)
    for block in range(depth, 0, -1):
        if unpooling == "indices":
            x = MaxUnpooling2D(name=f"decoder{block}_unpool")([x, indices[block]])
        else:
            x = keras.layers.UpSampling2D(2, interpolation="bilinear", name=f"decoder{block}_unpool")(x)
        widths = DECODER[block - 1]
        if block == 1:
            widths += (1,) * extra_convs
        for i, width in enumerate(widths, 1):
            filters = width * base_filters
            x = blocks.conv_bn_relu(
                x,
                filters,
                transposed=DECODERS[decoder],
                norm=norms(filters),
                initializer=decoder_initializer,
                name=f"decoder{block}_conv{i}",
            )
        if block >= 3:
            x = common.dropout(x, dropout, seed + 5 + block, f"decoder{block}_dropout")
        stride = 2 ** (block - 1)
        if stride in after:
            x = after[stride](x)
    return x


def _finish(model, encoder_weights, keep_preprocess=False):
    if encoder_weights:
        weights.load_encoder_weights(model, "vgg16", encoder_weights, keep_preprocess=keep_preprocess)
    return model
