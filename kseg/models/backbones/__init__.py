"""Encoders by name: the image's input, and the maps of every stride that a decoder can join."""

import keras

from kseg import blocks
from kseg.models import common
from kseg.models.backbones import resnet, vgg
from kseg.models.pretrained import weights

# By encoder: the layers that give the deepest map of each stride, where nothing is dilated.
_VGG16 = {2: "block2_conv2_relu", 4: "block3_conv3_relu", 8: "block4_conv3_relu", 16: "block5_conv3_relu"}
ENCODERS = {"vgg16": _VGG16 | {32: "block5_pool"}}
for _name, _counts in resnet.BLOCKS.items():
    ENCODERS[_name] = {2: "conv1_relu"}
    ENCODERS[_name] |= {2**stage: f"conv{stage}_block{count}_out" for stage, count in enumerate(_counts, 2)}


def encode(encoder, input_shape, *, output_stride=32, base_filters=64, initializer=blocks.HE_NORMAL):
    """An encoder and its maps.

    Args: `encoder`: a name of ENCODERS. `input_shape`: (H, W, 3), multiples of `output_stride` or None.
        `output_stride`: of the deepest map, 8, 16 or 32; below 32 the last stages are dilated. `base_filters`: 64 in
        the papers. `initializer`: of the kernels.
    Returns: (image, maps): the keras.Input, and {stride: the deepest map of that stride}.
    Raises: ValueError for another encoder or output stride, or sizes that do not divide.
    """
    common.choose("encoder", encoder, ENCODERS)
    image, x = common.image_input(input_shape, output_stride)
    if encoder == "vgg16":
        x = vgg.vgg16(x, base_filters, output_stride=output_stride, initializer=initializer)["out"]
    else:
        x = resnet.resnet(x, encoder, base_filters, output_stride=output_stride, initializer=initializer)
    model = keras.Model(image, x)
    maps = {}
    present = {layer.name: layer.output for layer in model.layers}
    for stride, name in ENCODERS[encoder].items():
        if stride < output_stride and name in present:
            maps[stride] = present[name]
    return image, maps | {output_stride: x}


def load_encoder(model, encoder, source):
    """Fills the encoder of a model with weights: `source` is "imagenet" or a file."""
    weights.load_encoder_weights(model, encoder, source)
