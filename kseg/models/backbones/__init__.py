"""Encoders by name: the image's input, and the maps of every stride that a decoder can join."""

import keras

from kseg import blocks
from kseg.models import common
from kseg.models.backbones import resnet, vgg
from kseg.models.pretrained import weights

ENCODERS = {"vgg16": vgg.BLOCKS, **resnet.BLOCKS}


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
        ends = {2: "block2_conv2_relu", 4: "block3_conv3_relu", 8: "block4_conv3_relu", 16: "block5_conv3_relu"}
    else:
        x = resnet.resnet(x, encoder, base_filters, output_stride=output_stride, initializer=initializer)
        ends = {2: "conv1_relu"}
        for stage, count in enumerate(resnet.BLOCKS[encoder], 2):
            ends[2**stage] = f"conv{stage}_block{count}_out"
    model = keras.Model(image, x)
    maps = {stride: model.get_layer(name).output for stride, name in ends.items() if stride < output_stride}
    return image, maps | {output_stride: x}


def load_encoder(model, encoder, source):
    """Fills the encoder of a model with weights: `source` is "imagenet" or a file."""
    weights.load_encoder_weights(model, encoder, source)
