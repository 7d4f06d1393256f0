"""EfficientNet-Lite 0 to 2: EfficientNets for phones, without squeeze-and-excitation and with ReLU6."""

import math

import keras

EPSILON = 1e-3  # of the batch norms
# Blocks of a stage, kernel size, stride, expansion and output channels, all of the unscaled network.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32
# Factors of width and depth. Stem, first and last stage keep their depth, and the stem its width.
SCALES = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}


def efficientnet_lite(name, size):
    """The convolutions of EfficientNet-Lite (Liu 2020, TensorFlow's blog; network: Tan and Le 2019, arXiv 1905.11946).

    Inverted bottlenecks (Sandler et al. 2018, arXiv 1801.04381) without squeeze-and-excitation, ReLU6. Padding is
    TensorFlow's "same", as in the network that the published weights were trained in. Left out: the head of 1280
    channels and the classifier, and the stochastic depth of its training.

    Args: `name`: a key of SCALES. `size`: height and width of the input.
    Returns: keras.Model: (B, size, size, 3), normalised -> (B, size / 32, size / 32, 320 times the width).
    """
    width, depth = SCALES[name]
    image = keras.Input((size, size, 3))
    x = _conv_bn(image, keras.layers.Conv2D(STEM, 3, strides=2, padding="same", use_bias=False, name="stem_conv"))
    x = keras.layers.ReLU(6.0, name="stem_relu")(x)
    block = 0
    for stage, (count, kernel_size, strides, expansion, channels) in enumerate(STAGES):
        if 0 < stage < len(STAGES) - 1:
            count = math.ceil(depth * count)
        for i in range(count):
            x = _bottleneck(
                x,
                _rounded(channels * width),
                kernel_size=kernel_size,
                strides=strides if i == 0 else 1,
                expansion=expansion,
                name=f"block{block}",
            )
            block += 1
    return keras.Model(image, x, name=name)


def torch_prefix(name):
    """What the network for PyTorch (efficientnet_lite_pytorch) calls a layer.

    "stem_conv" -> "_conv_stem", "block3_expand_bn" -> "_blocks.3._bn0"; a layer of another encoder -> what no file has.
    """
    if name in ("stem_conv", "stem_bn"):
        return {"stem_conv": "_conv_stem", "stem_bn": "_bn0"}[name]
    block, _, part = name.partition("_")
    parts = {
        "expand": "_expand_conv",
        "expand_bn": "_bn0",
        "depthwise": "_depthwise_conv",
        "depthwise_bn": "_bn1",
        "project": "_project_conv",
        "project_bn": "_bn2",
    }
    return f"_blocks.{block.removeprefix('block')}.{parts.get(part, part)}"


def _rounded(channels):
    """To a multiple of 8, and by no more than a tenth down."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _conv_bn(x, convolution):
    name = convolution.name.removesuffix("_conv")
    return keras.layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(convolution(x))


def _bottleneck(x, filters, *, kernel_size, strides, expansion, name):
    """1x1 to `expansion` times the channels, depthwise, 1x1 to `filters`; plus the input where the shapes are equal."""
    shortcut = x
    channels = x.shape[-1]
    if expansion > 1:
        x = _conv_bn(x, keras.layers.Conv2D(expansion * channels, 1, use_bias=False, name=f"{name}_expand"))
        x = keras.layers.ReLU(6.0, name=f"{name}_expand_relu")(x)
    depthwise = keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        name=f"{name}_depthwise",
    )
    x = keras.layers.ReLU(6.0, name=f"{name}_depthwise_relu")(_conv_bn(x, depthwise))
    x = _conv_bn(x, keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project"))
    if strides == 1 and channels == filters:
        x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return x
