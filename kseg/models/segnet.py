"""SegNet and SegNet-ASPP: a VGG16 encoder and its mirror, joined by the positions of the pooling maxima."""

import keras

from kseg import blocks
from kseg.layers.normalization import BatchNormalization
from kseg.layers.pooling import MaxPooling2DWithArgmax, MaxUnpooling2D
from kseg.models import common
from kseg.models.pretrained import weights

# Output channels of each convolution in units of base_filters, from block 1; the decoder runs from 5 to 1.
ENCODER = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
DECODER = ((1,), (2, 1), (4, 4, 2), (8, 8, 4), (8, 8, 8))  # block 1 has one more: the scores, or none
MULTIPLE = 32
DECODERS = {"conv": False, "transposed": True}
NORMS = ("per_conv", "shared")


def segnet(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    decoder="conv",
    dropout=0.0,
    initializer=blocks.HE_NORMAL,
    encoder_weights=None,
    seed=0,
    name="segnet",
):
    """SegNet (Badrinarayanan, Kendall and Cipolla 2017, arXiv 1511.00561, figure 2): 26 convolutions.

    Args: `input_shape`: (H, W, 3), multiples of 32 or None. `num_classes`: channels of the scores.
        `base_filters`: 64 in the paper. `decoder`: "conv" or "transposed" convolutions of stride 1.
        `dropout`: rate around the deepest six blocks (Bayesian SegNet, arXiv 1511.02680), 0 in SegNet.
        `initializer`: of the kernels. `encoder_weights`: None, "imagenet" or a file
        (`encoders.load_encoder_weights`). `seed`: of the dropout.
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError for sizes that do not divide by 32, an unknown decoder or unfit weights.
    """
    image, x = common.image_input(input_shape, MULTIPLE)
    x, indices = _encoder(x, base_filters, initializer, _own_norm, dropout, seed)
    x = _decoder(x, indices, base_filters, decoder, initializer, _own_norm, dropout, seed)
    x = common.logits(x, num_classes, 3, initializer=initializer, transposed=DECODERS[decoder])
    return _finish(keras.Model(image, x, name=name), encoder_weights)


def segnet_aspp(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    decoder="conv",
    decoder_convs=12,
    norm="per_conv",
    rates=(6, 12, 18),
    tail=True,
    dropout=0.5,
    normalization="imagenet",
    initializer=blocks.HE_NORMAL,
    decoder_initializer=None,
    encoder_weights=None,
    seed=0,
    name="segnet_aspp",
):
    """SegNet with ASPP on its full-resolution map (Fischer and Malhotra 2021, figure 2).

    Deviation: one batch norm per convolution; norm="shared" is that of the authors' code, one for each width of the
    trunk (512, 256, 128, 64 channels), see the warning in `blocks.recurrent_conv`.

    Args: as in `segnet`, and `rates`: ASPP's dilation rates in pixels of the full resolution.
        `decoder_convs`: 12, or 13 as the paper's text has it, before ASPP. `norm`: "per_conv" or "shared".
        `tail`: a 3x3 convolution, batch norm and ReLU between ASPP and the scores.
        `dropout`: rate after ASPP's projection, 0 for none. ASPP and tail have 4 * base_filters channels.
        `normalization`: "imagenet", or "unit" (RGB / 255) whatever weights are loaded.
        `decoder_initializer`: of the decoder's kernels, None for `initializer`.
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError as `segnet`; training on a single image per device raises too (ASPP's pooled branch).
    """
    common.choose("norm", norm, NORMS)
    common.choose("decoder_convs", decoder_convs, (12, 13))
    image, x = common.image_input(input_shape, MULTIPLE, normalization)
    norms = _norm_by_width() if norm == "shared" else _own_norm
    x, indices = _encoder(x, base_filters, initializer, norms)
    extra = decoder_convs - 12
    x = _decoder(x, indices, base_filters, decoder, decoder_initializer or initializer, norms, extra=extra)
    x = blocks.aspp(x, 4 * base_filters, rates, dropout=dropout, initializer=initializer, seed=seed)
    if tail:
        x = blocks.conv_bn_relu(x, 4 * base_filters, initializer=initializer, name="tail")
    x = common.logits(x, num_classes, initializer=initializer)
    return _finish(keras.Model(image, x, name=name), encoder_weights, keep_preprocess=normalization != "imagenet")


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


def _encoder(x, base_filters, initializer, norm, dropout=0.0, seed=0):
    """(B, H, W, 3) -> (B, H/32, W/32, 8 * base_filters), and the positions of each block's maxima."""
    indices = {}
    for block, widths in enumerate(ENCODER, 1):
        for i, width in enumerate(widths, 1):
            filters, name = width * base_filters, f"block{block}_conv{i}"
            x = blocks.conv_bn_relu(x, filters, norm=norm(filters), initializer=initializer, name=name)
        x, indices[block] = MaxPooling2DWithArgmax(name=f"block{block}_pool")(x)
        if block >= 3:
            x = common.dropout(x, dropout, seed + block, f"block{block}_dropout")
    return x, indices


def _decoder(x, indices, base_filters, decoder, initializer, norm, dropout=0.0, seed=0, extra=0):
    """The mirror, (B, H, W, base_filters): all of SegNet's but its last convolution, and `extra` of that width."""
    common.choose("decoder", decoder, DECODERS)
    options = {"transposed": DECODERS[decoder], "initializer": initializer}
    for block in (5, 4, 3, 2, 1):
        x = MaxUnpooling2D(name=f"decoder{block}_unpool")([x, indices[block]])
        widths = DECODER[block - 1] + (1,) * (extra if block == 1 else 0)
        for i, width in enumerate(widths, 1):
            filters = width * base_filters
            x = blocks.conv_bn_relu(x, filters, norm=norm(filters), name=f"decoder{block}_conv{i}", **options)
        if block >= 3:
            x = common.dropout(x, dropout, seed + 5 + block, f"decoder{block}_dropout")
    return x


def _finish(model, encoder_weights, keep_preprocess=False):
    if encoder_weights:
        weights.load_encoder_weights(model, "vgg16", encoder_weights, keep_preprocess=keep_preprocess)
    return model
