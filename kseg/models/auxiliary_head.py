"""An auxiliary head: scores from the middle of the encoder, in training only."""

import re

import keras

from kseg import blocks
from kseg.io.errors import InputError
from kseg.layers.normalization import BatchNormalization
from kseg.layers.preprocessing import preprocess_layer
from kseg.layers.upsampling import UpSampling2D
from kseg.models import common

_MIDDLES = re.compile(r"block4_pool|conv4_block\d+_out")  # VGG16's pool4, the blocks of ResNet's third stage
_STRIDE = 16  # of these maps, unless the encoder stops at less


def add_auxiliary_head(model, seed=0):
    """Make a model with two outputs, the logits of a model and of an auxiliary head on it; both share the layers.

    The head is where PSPNet has it (Zhao et al. 2017, arXiv 1612.01105, section 3.3), at the end of ResNet's third
    stage, or on pool4 of VGG16: 3x3 convolution to a quarter of the channels, batch norm, ReLU, dropout .1, 1x1 scores,
    resized bilinearly. The model itself stays as it is: what is saved and exported has no head.

    Args:
        model: keras.Model on VGG16 or a ResNet: an FCN, parsenet, a SegNet of four blocks or more, a DeepLab, FPN,
            SegFormer or U-Net with such an encoder. seed: of the head's dropout.
    Returns:
        keras.Model: (B, H, W, 3) -> [logits, the head's], each float32 (B, H, W, C).
    Raises:
        ValueError: a model without such a map.
    """
    middles = [layer for layer in model.layers if _MIDDLES.fullmatch(layer.name)]
    preprocess = preprocess_layer(model)
    if not middles or preprocess is None:
        raise InputError(
            f"auxiliary_weight needs a model with an auxiliary head, one on VGG16 or a ResNet, got '{model.name}'. "
            "Leave it out."
        )
    x = middles[-1].output  # (B, H/16, W/16, C)
    if not isinstance(x, keras.KerasTensor):
        x = x[0]  # of a SegNet, whose poolings give the positions of their maxima too
    x = keras.layers.Conv2D(
        max(x.shape[-1] // 4, 1),
        3,
        padding="same",
        use_bias=False,
        kernel_initializer=blocks.HE_NORMAL,
        name="auxiliary_conv",
    )(x)
    x = keras.layers.ReLU(name="auxiliary_relu")(BatchNormalization(name="auxiliary_bn")(x))
    x = common.dropout(x, 0.1, seed, "auxiliary_dropout")
    x = common.logits(x, model.output_shape[-1], initializer=blocks.HE_NORMAL, name="auxiliary_logits")
    stride = min(_STRIDE, preprocess.multiple)
    x = UpSampling2D(stride, interpolation="bilinear", dtype="float32", name="auxiliary_upsampling")(x)
    return keras.Model(model.input, [model.output, x], name=f"{model.name}_with_auxiliary_head")
