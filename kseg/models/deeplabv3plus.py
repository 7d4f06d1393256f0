"""DeepLabV3+: a dilated encoder, atrous spatial pyramid pooling, and a decoder that joins the map of stride 4."""

import keras

from kseg import blocks
from kseg.models import common
from kseg.models.backbones import decoder_model, encode
from kseg.models.deeplabv3 import RATES

LOW_LEVEL = 4  # stride of the map that the decoder joins


def deeplabv3plus(
    input_shape,
    num_classes,
    *,
    encoder="resnet50",
    output_stride=16,
    base_filters=64,
    decoder_filters=None,
    dropout=0.1,
    initializer=blocks.HE_NORMAL,
    encoder_weights=None,
    seed=0,
    name="deeplabv3plus",
):
    """DeepLabV3+ (Chen et al. 2018, arXiv 1802.02611, section 3.1, figure 2): DeepLabV3 with a decoder.

    ASPP's map is upsampled to stride 4 and joined with the encoder's map there, which a 1x1 convolution brings to 48
    channels (section 4.1); two 3x3 convolutions of 256 and the 1x1 scores follow, upsampled by 4. ASPP is
    `blocks.aspp`, so this model needs no keras-cv and runs on every backend; training it needs batches of 2.
    Deviations: plain convolutions in ASPP and decoder, where the paper's best network has depthwise separable ones on
    an Xception; no multi grid in the ResNets.

    Args: `input_shape`: (H, W, 3), multiples of `output_stride` or None. `num_classes`: channels of the scores.
        `encoder`: one of `backbones.encode` that can be dilated, ResNet-50 for its published weights. `output_stride`:
        16 or 8; ASPP's rates are 6, 12, 18 or twice that. `base_filters`: of the encoder. `decoder_filters`: of ASPP
        and the 3x3 convolutions, None for 4 * base_filters (the paper's 256); the map of stride 4 is brought to 3/16 of
        them (48). `dropout`: rate after ASPP's projection, 0 for none, drawn from `seed`. `initializer`: of the
        kernels. `encoder_weights`: None, "imagenet" or a file (`backbones.load_encoder`).
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError for sizes that do not divide, unfit options or weights.
    """
    common.choose("output_stride", output_stride, RATES)
    filters = decoder_filters or 4 * base_filters
    image, maps = encode(
        encoder,
        input_shape,
        output_stride=output_stride,
        base_filters=base_filters,
        initializer=initializer,
    )
    low, x = common.at_strides(maps, (LOW_LEVEL, output_stride), encoder).values()
    x = blocks.aspp(
        x,
        filters,
        RATES[output_stride],
        dropout=dropout,
        initializer=initializer,
        seed=seed,
    )
    x = common.upsample(x, output_stride // LOW_LEVEL, "aspp_upsampling")  # (B, H/4, W/4, filters)
    low_filters = max(filters * 3 // 16, 1)
    low = blocks.conv_bn_relu(low, low_filters, 1, initializer=initializer, name="low_level")
    x = keras.layers.Concatenate(name="decoder_skip")([low, x])
    for i in (1, 2):
        x = blocks.conv_bn_relu(x, filters, initializer=initializer, name=f"decoder_conv{i}")
    x = common.logits(x, num_classes, initializer=initializer)
    x = common.upsample(x, LOW_LEVEL, "upsampling", "float32")
    return decoder_model(image, x, encoder=encoder, encoder_weights=encoder_weights, name=name)
