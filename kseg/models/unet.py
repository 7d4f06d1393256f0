"""U-Net, RU-Net, ResU-Net and R2U-Net: one skeleton and four blocks, on their own encoder or another."""

import functools

import keras

from kseg import blocks
from kseg.io.errors import InputError, check_whole
from kseg.models import common
from kseg.models.backbones import decoder_model, encode

DEPTH = 5  # levels of the papers' own encoders
UPSAMPLINGS = ("nearest", "transposed")
SKIPS = ("concat", "add")
HEAD_ACTIVATIONS = (None, "relu")


def unet(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    depth=None,
    upsampling="nearest",
    skip="concat",
    initializer=blocks.HE_NORMAL,
    encoder=None,
    encoder_weights=None,
    decoder_filters=None,
    name="unet",
):
    """U-Net (Ronneberger, Fischer and Brox 2015, arXiv 1505.04597, section 2): two 3x3 convolutions a level.

    Deviations, as most implementations have them: padded convolutions with batch norm, so that the scores have the
    image's size; upsampling by the nearest neighbour and a 3x3 convolution.

    With `encoder` there is another encoder instead of U-Net's: the decoder begins at its map of stride 32 and goes up
    to stride 1, with a skip at every stride where the encoder has a map. Its widths are then not the paper's but those
    that are usual over such encoders: 256 at stride 16, half as many at each level above (128, 64, 32, 16).

    Args: `input_shape`: (H, W, 3), multiples of 2^(depth - 1), of 32 with an `encoder`, or None. `num_classes`:
        channels of the scores. `base_filters`: of the first level, doubled at each; with an `encoder`, its width.
        `depth`: levels, None for the paper's 5; not with an `encoder`. `upsampling`: "nearest", followed by a 3x3
        convolution, or "transposed" (2x2, stride 2), both with batch norm and ReLU. `skip`: "concat" or "add", for
        which an encoder's map is projected to the decoder's width. `initializer`: of the kernels. `encoder`: None for
        the paper's own, or one of `backbones.encode`. Only with an `encoder`: `encoder_weights`: None, "imagenet" or a
        file (`backbones.load_encoder`); `decoder_filters`: at stride 16, None for 4 * base_filters.
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError for sizes that are not such multiples, an option with another value, unfit weights.
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
        encoder=encoder,
        encoder_weights=encoder_weights,
        decoder_filters=decoder_filters,
        name=name,
    )


def resunet(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    depth=None,
    upsampling="nearest",
    skip="concat",
    initializer=blocks.HE_NORMAL,
    encoder=None,
    encoder_weights=None,
    decoder_filters=None,
    name="resunet",
):
    """ResU-Net: U-Net with residual units and no recurrence (Alom et al. 2018, arXiv 1802.06955, figure 4c).

    Every level projects to its width by a 1x1 convolution, whose result is added to that of its two convolutions.

    Args: `base_filters`, `depth`, `upsampling`, `skip`, `initializer`, `encoder`, `encoder_weights`, `decoder_filters`:
        as in `unet`. Returns, Raises: as `unet`.
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
        encoder=encoder,
        encoder_weights=encoder_weights,
        decoder_filters=decoder_filters,
        name=name,
    )


def runet(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    depth=None,
    steps=2,
    recurrence="shared",
    upsampling="nearest",
    skip="concat",
    initializer=blocks.HE_NORMAL,
    encoder=None,
    encoder_weights=None,
    decoder_filters=None,
    name="runet",
):
    """RU-Net: U-Net with recurrent convolutions and no residual (Alom et al. 2018, arXiv 1802.06955, figure 4b).

    Args: `steps`, `recurrence`: of `blocks.recurrent_conv`; `base_filters`, `depth`, `upsampling`, `skip`,
        `initializer`, `encoder`, `encoder_weights`, `decoder_filters`: as in `unet`. Returns, Raises: as `unet`.
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
        encoder=encoder,
        encoder_weights=encoder_weights,
        decoder_filters=decoder_filters,
        name=name,
    )


def r2unet(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    depth=None,
    steps=2,
    recurrence="shared",
    upsampling="nearest",
    skip="concat",
    initializer=blocks.HE_NORMAL,
    encoder=None,
    encoder_weights=None,
    decoder_filters=None,
    name="r2unet",
):
    """R2U-Net: recurrent residual U-Net (Alom et al. 2018, arXiv 1802.06955, section III, figures 3 and 4d).

    Every level projects to its width by a 1x1 convolution, whose result is added to that of two recurrent convolutions.
    Deviations: a batch norm per step (`blocks.recurrent_conv` says why; `r2unet_fischer2021` can share one); by default
    one kernel for input and recurrence, as most implementations have it, while the paper has two
    (recurrence="separate"); and those of `unet`.

    Args: `steps`, `recurrence`: of `blocks.recurrent_conv`; `base_filters`, `depth`, `upsampling`, `skip`,
        `initializer`, `encoder`, `encoder_weights`, `decoder_filters`: as in `unet`. Returns, Raises: as `unet`.
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
        encoder=encoder,
        encoder_weights=encoder_weights,
        decoder_filters=decoder_filters,
        name=name,
    )


def r2unet_fischer2021(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    depth=DEPTH,
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


def _own_encoder(input_shape, block, base_filters, depth):
    """The input, and the maps of the papers' encoder by stride: a block a level, each after a 2x2 pooling."""
    depth = check_whole("depth", depth, 1)
    base_filters = check_whole("base_filters", base_filters, 1)
    image, x = common.image_input(input_shape, 2 ** (depth - 1))
    maps = {}
    for level in range(1, depth + 1):
        x = block(x, base_filters * 2 ** (level - 1), name=f"encoder{level}")  # (B, H / 2^(level - 1), ...)
        maps[2 ** (level - 1)] = x
        if level < depth:
            x = keras.layers.MaxPooling2D(2, name=f"encoder{level}_pool")(x)
    return image, maps


def _other_encoder(encoder, input_shape, base_filters, depth, initializer):
    """The input and the maps of an encoder of `backbones`."""
    if depth is not None:
        raise InputError(f"depth is of the U-Nets' own encoder, got {depth} with encoder {encoder!r}. Leave it out.")
    return encode(encoder, input_shape, base_filters=base_filters, initializer=initializer)


def _join(choice, initializer):
    """A function (skip, x, name) that joins an encoder's map with the map that came up; "add" projects to one width."""
    common.choose("skip", choice, SKIPS)
    if choice == "concat":
        return lambda skip, x, *, name: keras.layers.Concatenate(name=name)([skip, x])

    def add(skip, x, *, name):
        if skip.shape[-1] != x.shape[-1]:
            skip = blocks.project(skip, x.shape[-1], initializer=initializer, name=name)
        return keras.layers.Add(name=name)([skip, x])

    return add


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
    encoder=None,
    encoder_weights=None,
    decoder_filters=None,
    name,
):
    """The skeleton; `block`, (x, filters, name), makes the maps of a level of the decoder and of the own encoder."""
    up = _upsampling(upsampling, initializer)
    join = _join(skip, initializer)
    common.choose("head_activation", head_activation, HEAD_ACTIVATIONS)
    if encoder is None:
        for option, value in {"encoder_weights": encoder_weights, "decoder_filters": decoder_filters}.items():
            if value:
                raise InputError(f"{option} needs an encoder, such as resnet50, got {value!r} alone.")
        image, maps = _own_encoder(input_shape, block, base_filters, DEPTH if depth is None else depth)
        widths = {stride: base_filters * stride for stride in maps}
    else:
        image, maps = _other_encoder(encoder, input_shape, base_filters, depth, initializer)
        filters = decoder_filters or 4 * base_filters
        widths = {2**i: max(filters * 2**i // 16, 1) for i in range(5)}
    stride = max(maps)
    x = maps[stride]
    while stride > 1:
        stride //= 2
        level = stride.bit_length()  # 1 at the image's resolution
        x = up(x, widths[stride], name=f"decoder{level}_up")
        if stride in maps:
            x = join(maps[stride], x, name=f"decoder{level}_skip")
        x = block(x, widths[stride], name=f"decoder{level}")
    x = common.logits(x, num_classes, initializer=initializer, activation=head_activation)
    return decoder_model(image, x, encoder=encoder, encoder_weights=encoder_weights, name=name)
