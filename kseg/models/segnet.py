"""SegNet and SegNet-ASPP: a VGG16 encoder and its mirror, joined by the positions of the pooling maxima."""

import keras

from kseg import blocks
from kseg.layers import MaxPooling2DWithArgmax, MaxUnpooling2D, Preprocess
from kseg.models import encoders

# Output channels of each convolution in units of base_filters, from block 1; the decoder runs from 5 to 1.
ENCODER = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
DECODER = ((1,), (2, 1), (4, 4, 2), (8, 8, 4), (8, 8, 8))  # block 1 has one more: the scores, or none
MULTIPLE = 32
DECODERS = {"conv": False, "transposed": True}


def _input(input_shape):
    """The Input and its normalisation; free sizes (None) are checked by the pooling layers."""
    height, width, _ = input_shape
    if (height or 0) % MULTIPLE or (width or 0) % MULTIPLE:
        fit = "x".join(str(max(round(size / MULTIPLE), 1) * MULTIPLE) if size else "?" for size in (height, width))
        raise ValueError(
            f"Height and width must be multiples of {MULTIPLE}, got {height or '?'}x{width or '?'}. "
            f"Pad or crop to {fit}."
        )
    image = keras.Input(input_shape, name="image")
    size = (height, width) if height and width else None
    mean, scale = encoders.IMAGENET_MEAN, encoders.IMAGENET_SCALE
    return image, Preprocess(mean, scale, multiple=MULTIPLE, size=size, name="preprocess")(image)


def _drop(x, dropout, seed, name):
    return keras.layers.Dropout(dropout, seed=seed, name=name)(x) if dropout else x


def _trunk(x, base_filters, decoder, initializer, dropout=0.0, seed=0):
    """(B, H, W, 3) -> (B, H, W, base_filters): all of SegNet but its last convolution."""
    if decoder not in DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}.")
    indices = {}
    for block, widths in enumerate(ENCODER, 1):
        for i, width in enumerate(widths, 1):
            name = f"block{block}_conv{i}"
            x = blocks.conv_bn_relu(x, width * base_filters, initializer=initializer, name=name)
        x, indices[block] = MaxPooling2DWithArgmax(name=f"block{block}_pool")(x)
        if block >= 3:
            x = _drop(x, dropout, seed + block, f"block{block}_dropout")
    for block in (5, 4, 3, 2, 1):
        x = MaxUnpooling2D(name=f"decoder{block}_unpool")([x, indices[block]])
        for i, width in enumerate(DECODER[block - 1], 1):
            name = f"decoder{block}_conv{i}"
            transposed = DECODERS[decoder]
            x = blocks.conv_bn_relu(x, width * base_filters, transposed=transposed, initializer=initializer, name=name)
        if block >= 3:
            x = _drop(x, dropout, seed + 5 + block, f"decoder{block}_dropout")
    return x


def _logits(x, num_classes, kernel_size, initializer, transposed=False):
    """Scores in float32, also under mixed precision."""
    layer = keras.layers.Conv2DTranspose if transposed else keras.layers.Conv2D
    options = {"padding": "same", "kernel_initializer": initializer, "dtype": "float32", "name": "logits"}
    return layer(num_classes, kernel_size, **options)(x)


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
        (`encoders.load_vgg16_weights`). `seed`: of the dropout.
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError for sizes that do not divide by 32, an unknown decoder or unfit weights.
    """
    image, x = _input(input_shape)
    x = _trunk(x, base_filters, decoder, initializer, dropout, seed)
    x = _logits(x, num_classes, 3, initializer, transposed=DECODERS[decoder])
    return _finish(image, x, encoder_weights, name)


def segnet_aspp(
    input_shape,
    num_classes,
    *,
    base_filters=64,
    decoder="conv",
    rates=(6, 12, 18),
    tail=True,
    dropout=0.5,
    initializer=blocks.HE_NORMAL,
    encoder_weights=None,
    seed=0,
    name="segnet_aspp",
):
    """SegNet with ASPP on its full-resolution map (Fischer and Malhotra 2021, figure 2).

    Deviation: one batch norm per convolution (the authors' code shares four over the trunk).

    Args: as in `segnet`, and `rates`: ASPP's dilation rates in pixels of the full resolution.
        `tail`: a 3x3 convolution, batch norm and ReLU between ASPP and the scores.
        `dropout`: rate after ASPP's projection, 0 for none. ASPP and tail have 4 * base_filters channels.
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError as `segnet`; training on a single image per device raises too (ASPP's pooled branch).
    """
    image, x = _input(input_shape)
    x = _trunk(x, base_filters, decoder, initializer)
    x = blocks.aspp(x, 4 * base_filters, rates, dropout=dropout, initializer=initializer, seed=seed)
    if tail:
        x = blocks.conv_bn_relu(x, 4 * base_filters, initializer=initializer, name="tail")
    x = _logits(x, num_classes, 1, initializer)
    return _finish(image, x, encoder_weights, name)


def _finish(image, logits, encoder_weights, name):
    model = keras.Model(image, logits, name=name)
    if encoder_weights:
        encoders.load_vgg16_weights(model, encoder_weights)
    return model
