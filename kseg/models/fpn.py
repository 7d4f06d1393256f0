"""Semantic FPN: a feature pyramid over an encoder, and a branch that brings all its levels to stride 4."""

import functools
import math

import keras

from kseg import blocks
from kseg.models import common
from kseg.models.backbones import decoder_model, encode

STRIDES = (32, 16, 8, 4)  # of the pyramid's levels
GROUPS = 32  # of the group norm (Wu and He 2018, arXiv 1803.08494)


def fpn(
    input_shape,
    num_classes,
    *,
    encoder="resnet50",
    base_filters=64,
    decoder_filters=None,
    initializer=blocks.HE_NORMAL,
    encoder_weights=None,
    name="fpn",
):
    """Semantic FPN (Kirillov, Girshick, He and Dollar 2019, arXiv 1901.02446, section 3, figure 3).

    Feature pyramid (Lin et al. 2017, arXiv 1612.03144, section 3): a 1x1 convolution of each of the encoder's maps to
    256 channels, each added to the doubled map below it (nearest neighbour), then a 3x3 convolution. Semantic branch:
    3x3 convolution to 128 channels, group norm, ReLU and bilinear doubling, as often as a level needs to come to stride
    4, once and without doubling there; the levels' sum, 1x1 scores, upsampled by 4. Deviation: the convolutions in
    front of a group norm have a bias.

    Args: `input_shape`: (H, W, 3), multiples of 32 or None. `num_classes`: channels of the scores. `encoder`: one of
        `backbones.encode` with maps of strides 4 to 32, ResNet-50 as in the paper. `base_filters`: of the encoder.
        `decoder_filters`: of the pyramid, None for 4 * base_filters (the paper's 256); the branch has half as many.
        `initializer`: of the kernels. `encoder_weights`: None, "imagenet" or a file (`backbones.load_encoder`).
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError for sizes that do not divide, unfit options or weights.
    """
    filters = decoder_filters or 4 * base_filters
    image, maps = encode(encoder, input_shape, base_filters=base_filters, initializer=initializer)
    levels = _pyramid(common.at_strides(maps, STRIDES, encoder), filters, initializer)
    branches = [_to_stride_4(x, stride, max(filters // 2, 1), initializer) for stride, x in levels.items()]
    x = keras.layers.Add(name="segmentation")(branches)  # (B, H/4, W/4, filters / 2)
    x = common.logits(x, num_classes, initializer=initializer)
    x = common.upsample(x, STRIDES[-1], "upsampling", "float32")
    return decoder_model(image, x, encoder=encoder, encoder_weights=encoder_weights, name=name)


def _pyramid(maps, filters, initializer):
    """{stride: map of `filters` channels}, each of the encoder's map there and of all deeper ones; deepest first."""
    convolution = functools.partial(keras.layers.Conv2D, filters, padding="same", kernel_initializer=initializer)
    levels = {}
    x = None
    for stride, encoded in maps.items():
        lateral = convolution(1, name=f"lateral{stride}")(encoded)
        if x is None:
            x = lateral
        else:
            doubled = keras.layers.UpSampling2D(2, name=f"top_down{stride}_nearest")(x)
            x = keras.layers.Add(name=f"top_down{stride}")([lateral, doubled])
        levels[stride] = convolution(3, name=f"pyramid{stride}")(x)
    return levels


def _to_stride_4(x, stride, filters, initializer):
    """Convolutions with group norm and ReLU, each followed by doubling, until the map has stride 4."""
    for i in range(1, max(int(math.log2(stride // 4)), 1) + 1):
        name = f"segmentation{stride}_conv{i}"
        norm = keras.layers.GroupNormalization(math.gcd(GROUPS, filters), epsilon=1e-5, name=f"{name}_gn")
        x = blocks.conv_bn_relu(x, filters, norm=norm, initializer=initializer, name=name)
        if stride > 4:
            x = common.upsample(x, 2, f"segmentation{stride}_up{i}")
    return x
