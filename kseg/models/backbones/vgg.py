"""The convolutions of VGG16 as an encoder that is fine-tuned: without batch norm, strided or dilated."""

import keras

from kseg.models import common

# Output channels of each convolution in units of base_filters, by block.
BLOCKS = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
OUTPUT_STRIDES = (8, 16, 32)


def vgg16(x, base_filters, *, output_stride=32, initializer):
    """VGG16's 13 convolutions and 5 poolings (Simonyan and Zisserman 2015, arXiv 1409.1556, table 1, D).

    Below output stride 32 the last poolings have stride 1, and every window after one of them, of convolutions and
    poolings, is dilated twice as much (Chen et al. 2017, arXiv 1706.05587, section 3.1): the maps at every 2nd or 4th
    place are those of the strided network.

    Args: `x`: (B, H, W, 3), normalised, H and W multiples of 32 (of the output stride, where it is less).
        `base_filters`: channels of block 1, 64 in the paper. `output_stride`: 32, 16 or 8. `initializer`: of kernels.
    Returns: {"conv1": ..., "pool1": ..., "pool5": ..., "out": ...}: the maps before and after each pooling, "out" being
        the deepest, that of "pool5": (B, H / output_stride, W / output_stride, 8 * base_filters).
    Raises: ValueError for another output stride.
    """
    common.choose("output_stride", output_stride, OUTPUT_STRIDES)
    maps = {}
    dilation = 1
    stride = 1
    for block, widths in enumerate(BLOCKS, 1):
        for i, width in enumerate(widths, 1):
            name = f"block{block}_conv{i}"
            x = keras.layers.Conv2D(
                width * base_filters,
                3,
                padding="same",
                dilation_rate=dilation,
                kernel_initializer=initializer,
                name=name,
            )(x)
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
        maps[f"conv{block}"] = x
        if stride < output_stride:
            x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
            stride *= 2
        else:
            x = _dilated_pool(x, dilation, f"block{block}_pool")
            dilation *= 2
        maps[f"pool{block}"] = x
    return {**maps, "out": x}


def vgg16_maps(x, base_filters, *, output_stride, initializer):
    """The deepest map of every stride of `vgg16`: {stride: tensor}, from 2 to `output_stride`."""
    maps = vgg16(x, base_filters, output_stride=output_stride, initializer=initializer)
    deepest = {2 ** (block - 1): maps[f"conv{block}"] for block in range(2, 6) if 2 ** (block - 1) < output_stride}
    return deepest | {output_stride: maps["out"]}


def _dilated_pool(x, dilation, name):
    """Maxima over 2x2 cells that are `dilation` apart, at stride 1; zeros beyond the edge, as x is not negative."""
    if dilation == 1:
        return keras.layers.MaxPooling2D(2, strides=1, padding="same", name=name)(x)
    x = keras.layers.ZeroPadding2D(((0, dilation), (0, dilation)), name=f"{name}_pad")(x)
    crops = ((0, dilation), (dilation, 0))
    cells = [
        keras.layers.Cropping2D((rows, columns), name=f"{name}_cell{2 * i + j}")(x)
        for i, rows in enumerate(crops)
        for j, columns in enumerate(crops)
    ]
    return keras.layers.Maximum(name=name)(cells)
