"""ResNet-50 and ResNet-101 with dilation in place of stride: the backbones of DeepLabV3."""

import keras

from kseg import blocks
from kseg.io.errors import InputError, is_whole
from kseg.layers.normalization import BatchNormalization
from kseg.models import common

# Blocks of the stages conv2 to conv5; a stage's blocks end in 4, 8, 16 and 32 times base_filters channels.
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
OUTPUT_STRIDES = (8, 16, 32)
EPSILON = 1.001e-5  # of Keras' ResNets, and so of the statistics in their weights


def resnet(x, backbone, base_filters, *, output_stride, multi_grid=(1, 1, 1), initializer=blocks.HE_NORMAL):
    """ResNet (He et al. 2015, arXiv 1512.03385, table 1) with the layers of `keras.applications.ResNet50`.

    Layer names, biases and strides (in the first 1x1 convolution of a stage) are Keras', so that its weights fit. Where
    a stage would pass `output_stride`, its stride is dropped and the dilation of its 3x3 convolutions and of all after
    it doubles: with the same weights, every second value of the map is that of the strided network (Chen et al. 2017,
    arXiv 1706.05587, section 3.1).

    Args: `x`: (B, H, W, C), normalised. `backbone`: "resnet50" or "resnet101". `base_filters`: 64 in the paper.
        `output_stride`: 8, 16 or 32. `multi_grid`: factors of the dilations in the last stage's three blocks.
    Returns: (B, H / output_stride, W / output_stride, 32 * base_filters), rounded up.
    Raises: ValueError for another choice of an option.
    """
    maps = resnet_maps(
        x,
        backbone,
        base_filters,
        output_stride=output_stride,
        multi_grid=multi_grid,
        initializer=initializer,
    )
    return maps[output_stride]


def resnet_maps(
    x,
    backbone,
    base_filters,
    *,
    output_stride,
    multi_grid=(1, 1, 1),
    initializer=blocks.HE_NORMAL,
):
    """The deepest map of every stride of `resnet`, whose arguments it takes: {stride: tensor}, 2 to `output_stride`."""
    common.choose("backbone", backbone, BLOCKS)
    common.choose("output_stride", output_stride, OUTPUT_STRIDES)
    if len(multi_grid) != 3 or not all(is_whole(rate) and rate >= 1 for rate in multi_grid):
        raise InputError(f"multi_grid must be three positive dilation factors, got {multi_grid}. Try (1, 2, 4).")
    x = keras.layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = _conv_bn(x, base_filters, 7, strides=2, initializer=initializer, name="conv1")
    x = keras.layers.ReLU(name="conv1_relu")(x)
    maps = {2: x}
    x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    stride = 4
    dilation = 1
    for stage, count in enumerate(BLOCKS[backbone], 2):
        strides = 2 if stage > 2 and stride < output_stride else 1
        stride *= strides
        dilation *= 2 if stage > 2 and strides == 1 else 1
        grid = multi_grid if stage == 5 else (1,) * count
        for i, factor in enumerate(grid, 1):
            x = _bottleneck(
                x,
                base_filters * 2 ** (stage - 2),
                first=i == 1,
                strides=strides if i == 1 else 1,
                dilation=dilation * factor,
                initializer=initializer,
                name=f"conv{stage}_block{i}",
            )
        maps[stride] = x
    return maps


def _conv_bn(x, filters, kernel_size, *, strides=1, dilation=1, padding="valid", initializer, name):
    x = keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        dilation_rate=dilation,
        kernel_initializer=initializer,
        name=f"{name}_conv",
    )(x)
    return BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)


def _bottleneck(x, filters, *, first, strides, dilation, initializer, name):
    """1x1, 3x3 and 1x1 convolutions to 4 * `filters` channels, plus their input, projected in a stage's first block."""
    shortcut = x
    if first:
        shortcut = _conv_bn(x, 4 * filters, 1, strides=strides, initializer=initializer, name=f"{name}_0")
    x = _conv_bn(x, filters, 1, strides=strides, initializer=initializer, name=f"{name}_1")
    x = keras.layers.ReLU(name=f"{name}_1_relu")(x)
    x = _conv_bn(x, filters, 3, padding="same", dilation=dilation, initializer=initializer, name=f"{name}_2")
    x = keras.layers.ReLU(name=f"{name}_2_relu")(x)
    x = _conv_bn(x, 4 * filters, 1, initializer=initializer, name=f"{name}_3")
    x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return keras.layers.ReLU(name=f"{name}_out")(x)
