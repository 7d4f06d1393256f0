"""DeepLabV3: a dilated encoder and keras-cv's atrous spatial pyramid pooling, or kseg's own that equals it."""

import logging

import keras

from kseg import blocks
from kseg.io.errors import InputError
from kseg.layers.spatial_pyramid import SpatialPyramidPooling
from kseg.models import common
from kseg.models.backbones import decoder_model, encode, resnet

_log = logging.getLogger(__name__)

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}  # by output stride, in pixels of the encoder's map
MULTI_GRID = (1, 2, 4)


def deeplabv3(
    input_shape,
    num_classes,
    *,
    encoder="resnet50",
    output_stride=16,
    base_filters=64,
    multi_grid=None,
    dropout=0.1,
    initializer=blocks.HE_NORMAL,
    encoder_weights=None,
    seed=0,
    name="deeplabv3",
):
    """DeepLabV3 (Chen et al. 2017, arXiv 1706.05587, section 3): dilated encoder, ASPP, 1x1 scores, upsampled.

    Deviations: ResNet's strides are where Keras has them, for its weights. ASPP is keras-cv's: its batch norms have
    momentum .99 and epsilon 1e-3, its kernels Glorot's initialiser; training it needs batches of 2. Without keras-cv,
    and on JAX, it is `kseg.layers.SpatialPyramidPooling`, which computes the same.

    Args: `input_shape`: (H, W, 3), multiples of `output_stride` or None. `num_classes`: channels of the scores.
        `encoder`: one of `backbones.encode` that can be dilated. `output_stride`: 16 or 8; ASPP's rates are 6, 12, 18
        or twice that. `base_filters`: of the encoder; ASPP has four times as many. `multi_grid`: dilation factors of
        the last stage's three blocks, None for the paper's (1, 2, 4); ResNets only. `dropout`: rate after ASPP's
        projection (not in the paper, .1 in the authors' code), 0 for none, drawn from `seed`. `initializer`: of kernels
        outside ASPP. `encoder_weights`: None, "imagenet" or a file (`backbones.load_encoder`).
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError for sizes that are not multiples, options or weights that do not fit.
    """
    common.choose("output_stride", output_stride, RATES)
    pooling = _pyramid_pooling(RATES[output_stride], 4 * base_filters)
    if encoder in tuple(resnet.BLOCKS):
        image, x = common.image_input(input_shape, output_stride)
        x = resnet.resnet(
            x,
            encoder,
            base_filters,
            output_stride=output_stride,
            multi_grid=multi_grid or MULTI_GRID,
            initializer=initializer,
        )
    elif multi_grid is None:
        image, maps = encode(
            encoder,
            input_shape,
            output_stride=output_stride,
            base_filters=base_filters,
            initializer=initializer,
        )
        x = maps[output_stride]
    else:
        raise InputError(
            f"multi_grid is an option of the ResNets, got {multi_grid} with encoder {encoder}. Leave it out."
        )
    x = common.dropout(pooling(x), dropout, seed, "aspp_dropout")
    x = common.logits(x, num_classes, initializer=initializer)
    x = common.upsample(x, output_stride, "upsampling", "float32")
    return decoder_model(image, x, encoder=encoder, encoder_weights=encoder_weights, name=name)


def _pyramid_pooling(rates, filters):
    """keras-cv's layer, imported here: it costs two seconds and runs on TensorFlow alone. Else kseg's own."""
    layer = SpatialPyramidPooling
    if keras.backend.backend() == "tensorflow":
        try:
            from keras_cv import layers

            layer = layers.SpatialPyramidPooling
        except ImportError as error:
            _log.info("keras-cv cannot be imported (%s): ASPP is kseg's own, which computes the same.", error)
    return layer(dilation_rates=list(rates), num_channels=filters, name="aspp")
