"""U-Net, RU-Net, ResU-Net and R2U-Net: one skeleton and four blocks."""

import functools

import keras

from kseg import blocks
from kseg.io.errors import check_whole
from kseg.models import common

UPSAMPLINGS = ("nearest", "transposed")
SKIPS = ("concat", "add")
HEAD_ACTIVATIONS = (None, "relu")


def unet(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    depth=5,
    upsampling="nearest",
    skip="concat",
    initializer=blocks.HE_NORMAL,
    name="unet",
):
    """U-Net (Ronneberger, Fischer and Brox 2015, arXiv 1505.04597, section 2): two 3x3 convolutions a level.

    Deviations, as most implementations have them: padded convolutions with batch norm, so that the scores have the
    image's size; upsampling by the nearest neighbour and a 3x3 convolution.

    Args: `input_shape`: (H, W, 3), multiples of 2^(depth - 1) or None. `num_classes`: channels of the scores.
        `base_filters`: of the first level, doubled at each. `depth`: levels. `upsampling`: "nearest", followed by a
        3x3 convolution, or "transposed" (2x2, stride 2), both with batch norm and ReLU. `skip`: "concat" or "add".
        `initializer`: of the kernels.
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError for sizes that are not such multiples or an option with another value.
    """
    return _unet(
        input_shape,
        num_classes,
        functools.partial(blocks.double_conv, initializer=initializer),
        base_filters=base_filters,
        depth=depth,
        upsampling=upsampling,
        skip=skip,
        initializer=initializer,
        name=name,
    )


def resunet(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    depth=5,
    upsampling="nearest",
    skip="concat",
    initializer=blocks.HE_NORMAL,
    name="resunet",
):
    """ResU-Net: U-Net with residual units and no recurrence (Alom et al. 2018, arXiv 1802.06955, figure 4c).

    Every level projects to its width by a 1x1 convolution, whose result is added to that of its two convolutions.

    Args: `base_filters`, `depth`, `upsampling`, `skip`, `initializer`: as in `unet`. Returns, Raises: as `unet`.
    """
    return _unet(
        input_shape,
        num_classes,
        _residual(functools.partial(blocks.double_conv, initializer=initializer), initializer),
        base_filters=base_filters,
        depth=depth,
        upsampling=upsampling,
        skip=skip,
        initializer=initializer,
        name=name,
    )


def runet(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    depth=5,
    steps=2,
    recurrence="shared",
    upsampling="nearest",
    skip="concat",
    initializer=blocks.HE_NORMAL,
    name="runet",
):
    """RU-Net: U-Net with recurrent convolutions and no residual (Alom et al. 2018, arXiv 1802.06955, figure 4b).

    Args: `steps`, `recurrence`: of `blocks.recurrent_conv`; `base_filters`, `depth`, `upsampling`, `skip`,
        `initializer`: as in `unet`. Returns, Raises: as `unet`.
    """
    return _unet(
        input_shape,
        num_classes,
        _projected(_recurrent(steps, recurrence, "per_step", initializer), initializer),
        base_filters=base_filters,
        depth=depth,
        upsampling=upsampling,
        skip=skip,
        initializer=initializer,
        name=name,
    )


def r2unet(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    depth=5,
    steps=2,
    recurrence="shared",
    upsampling="nearest",
    skip="concat",
    initializer=blocks.HE_NORMAL,
    name="r2unet",
):
    """R2U-Net: recurrent residual U-Net (Alom et al. 2018, arXiv 1802.06955, section III, figures 3 and 4d).

    Every level projects to its width by a 1x1 convolution, whose result is added to that of two recurrent convolutions.
    Deviations: a batch norm per step (`blocks.recurrent_conv` says why; `r2unet_fischer2021` can share one); by default
    one kernel for input and recurrence, as most implementations have it, while the paper has two
    (recurrence="separate"); and those of `unet`.

    Args: `steps`, `recurrence`: of `blocks.recurrent_conv`; `base_filters`, `depth`, `upsampling`, `skip`,
        `initializer`: as in `unet`. Returns, Raises: as `unet`.
    """
    return _unet(
        input_shape,
        num_classes,
        _residual(_recurrent(steps, recurrence, "per_step", initializer), initializer),
        base_filters=base_filters,
        depth=depth,
        upsampling=upsampling,
        skip=skip,
        initializer=initializer,
        name=name,
    )


def r2unet_fischer2021(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    depth=5,
    steps=2,
    norm="shared",
    head_activation=None,
    initializer="glorot_normal",
    name="r2unet_fischer2021",
):
    """R2U-Net as Fischer and Malhotra train it (2021): `r2unet` with one batch norm for all steps of a recurrence.

    For configs/fischer2021, and for weights of other implementations, most of which share the batch norm. It often
    scores like noise in inference: `blocks.recurrent_conv` says why.

    Args: `norm`: "shared", or "per_step" as in `r2unet`. `head_activation`: None as in the authors' code, or "relu" on
        the scores as in their text. `base_filters`, `depth`, `steps`, `initializer`: as in `r2unet`.
    Returns, Raises: as `unet`.
    """
    return _unet(
        input_shape,
        num_classes,
        _residual(_recurrent(steps, "shared", norm, initializer), initializer),
        base_filters=base_filters,
        depth=depth,
        upsampling="nearest",
        skip="concat",
        head_activation=head_activation,
        initializer=initializer,
        name=name,
    )


def _recurrent(steps, recurrence, norm, initializer):
    return functools.partial(
        blocks.double_recurrent,
        steps=steps,
        recurrence=recurrence,
        norm=norm,
        initializer=initializer,
    )


def _projected(block, initializer):
    """The block on a projection of its input to its width."""

    def projected(x, filters, *, name):
        return block(blocks.project(x, filters, initializer=initializer, name=name), filters, name=name)

    return projected


def _residual(block, initializer):
    """The same plus the projection."""

    def residual(x, filters, *, name):
        x = blocks.project(x, filters, initializer=initializer, name=name)
        return keras.layers.Add(name=f"{name}_residual")([x, block(x, filters, name=name)])

    return residual


def _upsampling(choice, initializer):
    """A function (x, filters, name) that doubles height and width and halves the channels."""
    common.choose("upsampling", choice, UPSAMPLINGS)
    if choice == "transposed":
        return functools.partial(
            blocks.conv_bn_relu,
            kernel_size=2,
            strides=2,
            transposed=True,
            initializer=initializer,
        )

    def nearest(x, filters, *, name):
        x = keras.layers.UpSampling2D(2, name=f"{name}_nearest")(x)
        return blocks.conv_bn_relu(x, filters, initializer=initializer, name=name)

    return nearest


def _unet(
    input_shape,
    num_classes,
    block,
    *,
    base_filters,
    depth,
    upsampling,
    skip,
    head_activation=None,
    initializer,
    name,
):
    """The skeleton; `block`, (x, filters, name), makes the maps of a level, on the way down and on the way up."""
    up = _upsampling(upsampling, initializer)
    common.choose("skip", skip, SKIPS)
    common.choose("head_activation", head_activation, HEAD_ACTIVATIONS)
    depth = check_whole("depth", depth, 1)
    base_filters = check_whole("base_filters", base_filters, 1)
    join = {"concat": keras.layers.Concatenate, "add": keras.layers.Add}[skip]
    image, x = common.image_input(input_shape, 2 ** (depth - 1))
    skips = {}
    for level in range(1, depth + 1):
        x = block(x, base_filters * 2 ** (level - 1), name=f"encoder{level}")  # (B, H / 2^(level - 1), ...)
        if level < depth:
            skips[level] = x
            x = keras.layers.MaxPooling2D(2, name=f"encoder{level}_pool")(x)
    for level in range(depth - 1, 0, -1):
        filters = base_filters * 2 ** (level - 1)
        x = up(x, filters, name=f"decoder{level}_up")
        x = join(name=f"decoder{level}_skip")([skips[level], x])
        x = block(x, filters, name=f"decoder{level}")
    x = common.logits(x, num_classes, initializer=initializer, activation=head_activation)
    return keras.Model(image, x, name=name)
