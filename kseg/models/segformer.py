"""SegFormer's all-MLP head over the maps of an encoder."""

import keras

from kseg import blocks
from kseg.models import common
from kseg.models.backbones import decoder_model, encode

STRIDES = (32, 16, 8, 4)  # of the maps that it joins, in the authors' order


def segformer(
    input_shape,
    num_classes,
    *,
    encoder="resnet50",
    base_filters=64,
    decoder_filters=None,
    dropout=0.1,
    initializer=blocks.HE_NORMAL,
    encoder_weights=None,
    seed=0,
    name="segformer",
):
    """SegFormer's head (Xie et al. 2021, arXiv 2105.15203, section 3.2): a linear layer per level, and one of them all.

    Each map goes to `decoder_filters` channels by a 1x1 convolution (a linear layer per pixel) and bilinearly to
    stride 4; a 1x1 convolution of their concatenation, batch norm, ReLU and dropout (as in the authors' code), 1x1
    scores, upsampled by 4. Deviations: the encoder is any, not Mix Transformer alone: ResNet-50 by default, whose
    layers and weights need no further package; "hub:mit_b0_ade20k_512" is the paper's. Dropout drops single
    values, in the authors' code whole channels.

    Args: `input_shape`: (H, W, 3), multiples of 32 or None. `num_classes`: channels of the scores. `encoder`: one of
        `backbones.encode` with maps of strides 4 to 32. `base_filters`: of the encoder. `decoder_filters`: of the head,
        None for 4 * base_filters, the paper's 256 of its B0 and B1 (768 from B2 on). `dropout`: rate before the scores,
        0 for none, drawn from `seed`. `initializer`: of the kernels. `encoder_weights`: None, "imagenet" or a file
        (`backbones.load_encoder`).
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError for sizes that do not divide, unfit options or weights.
    """
    filters = decoder_filters or 4 * base_filters
    image, maps = encode(encoder, input_shape, base_filters=base_filters, initializer=initializer)
    levels = []
    for stride, x in common.at_strides(maps, STRIDES, encoder).items():
        x = keras.layers.Conv2D(filters, 1, kernel_initializer=initializer, name=f"linear{stride}")(x)
        levels.append(common.upsample(x, stride // STRIDES[-1], f"linear{stride}_upsampling"))
    x = keras.layers.Concatenate(name="levels")(levels)  # (B, H/4, W/4, 4 * filters)
    x = blocks.conv_bn_relu(x, filters, 1, initializer=initializer, name="fuse")
    x = common.dropout(x, dropout, seed, "fuse_dropout")
    x = common.logits(x, num_classes, initializer=initializer)
    x = common.upsample(x, STRIDES[-1], "upsampling", "float32")
    return decoder_model(image, x, encoder=encoder, encoder_weights=encoder_weights, name=name)
