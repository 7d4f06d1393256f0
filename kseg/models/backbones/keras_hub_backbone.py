"""Backbones of KerasHub, and any other network with a pyramid of maps, as an encoder."""

import keras
import numpy as np

from kseg.io.errors import InputError
from kseg.io.text import error_text
from kseg.layers.pyramid import Pyramid
from kseg.models.backbones.layerwise import SIZE, STRIDES
from kseg.models.pretrained.weights import PREFIX
from kseg.settings import HUB


def _keras_hub():
    try:
        import keras_hub
    except ImportError as error:
        raise InputError(f"An encoder {HUB}PRESET needs KerasHub: pip install 'kseg[hub]' ({error}).") from error
    return keras_hub


def _from_preset(encoder, what, **options):
    """What KerasHub makes of a preset: of whatever class `what` names."""
    hub = _keras_hub()
    kinds = {"backbone": hub.models.Backbone, "converter": hub.layers.ImageConverter}
    try:
        return kinds[what].from_preset(encoder.removeprefix(HUB), **options)
    except Exception as error:  # KerasHub, kagglehub and huggingface_hub raise their own where the network fails
        reason = error_text(error)
        if "Max retries exceeded" in reason:
            reason = "it cannot be downloaded, because the network does not answer"
        raise InputError(
            f"KerasHub gives no {what} for encoder {encoder}: {reason}. Give the name of a preset, with a network or "
            "after one run with it, or hub:FOLDER, into which both a backbone and its image converter were saved by "
            "save_to_preset."
        ) from error


def preset_backbone(encoder, load_weights=False):
    """The network of a preset. Args: `encoder`: hub:PRESET. Raises: ValueError without KerasHub or the preset."""
    return _from_preset(encoder, "backbone", load_weights=load_weights)


def preset_normalization(encoder):
    """Mean and scale, RGB in units of 0..255, of the preset's own image converter, which computes x * scale + offset.

    Args: `encoder`: hub:PRESET. Raises: ValueError without KerasHub or the preset.
    """
    converter = _from_preset(encoder, "converter")
    scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, (3,)).astype(float)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, (3,)).astype(float)
    return tuple((-offset / scale).tolist()), tuple((1.0 / scale).tolist())


def fitting(network, input_shape, encoder):
    """A network with a pyramid that takes images of a shape: itself, or one of the same weights that its config makes.

    Args: `network`: keras.Model with `pyramid_outputs`. `input_shape`: (H, W, 3). `encoder`: its name for messages.
    Returns: keras.Model. Raises: ValueError for a network without pyramid, or one that cannot take this size.
    """
    given = getattr(network, "input", None)  # a subclass that was never called has none
    if not getattr(network, "pyramid_outputs", None) or not isinstance(given, keras.KerasTensor):
        raise InputError(
            f"Encoder {encoder} must be a functional network of one input, with pyramid_outputs {{name: map}}."
        )
    named = network.pyramid_outputs
    for name, value in named.items() if isinstance(named, dict) else enumerate(named):
        if not isinstance(value, keras.KerasTensor) or len(value.shape) != 4:
            what = f"shape {tuple(value.shape)}" if isinstance(value, keras.KerasTensor) else type(value).__name__
            raise InputError(
                f"pyramid_outputs of encoder {encoder} must be its maps (B, H, W, C), got {what} as {name!r}."
            )
    own = tuple(network.input.shape[1:])
    if len(own) != 3 or own[2] not in (3, None):
        raise InputError(f"Encoder {encoder} must take RGB images (B, H, W, 3), but takes {(None, *own)}.")
    if all(size in (None, wanted) for size, wanted in zip(own, input_shape, strict=True)):
        return network
    config = network.get_config()
    if "image_shape" not in config:
        raise InputError(f"Encoder {encoder} takes images of {own[0]}x{own[1]} alone, got input_shape {input_shape}.")
    try:
        again = type(network).from_config({**config, "image_shape": tuple(input_shape)})
        again.set_weights(network.get_weights())
    except Exception as error:  # of layers that are not ours
        raise _unfit(encoder, input_shape, error) from error
    return again


def _unfit(encoder, shape, error):
    height, width = shape[:2]
    advice = (
        "" if height and height == width else " Try a fixed, square size: KerasHub's Mix Transformers take no other."
    )
    return InputError(f"Encoder {encoder} cannot take images of {tuple(shape)}: {error_text(error)}.{advice}")


def pyramid(network, x, *, output_stride, encoder):
    """The maps of a network of `fitting`: {stride: the last of `pyramid_outputs` that has it}.

    The order is that in which they were given, in which KerasHub's backbones go deeper: stage10 after stage9.

    Args: `x`: (B, H, W, 3), normalised. `output_stride`: that of the network's deepest map up to stride 32.
        `encoder`: its name for messages.
    Raises: ValueError for another output stride, since such a network is not dilated, and for images it cannot take.
    """
    flat = keras.tree.flatten(network.pyramid_outputs)  # sorted by name, as `Pyramid` gives them
    given = network.pyramid_outputs.values() if isinstance(network.pyramid_outputs, dict) else flat
    places = [next(place for place, tensor in enumerate(flat) if tensor is one) for one in given]
    if type(network).__module__.startswith("keras."):  # a config of its own would not know the pyramid
        try:
            network = keras.Model(network.input, flat, name=network.name)
        except ValueError as error:
            raise InputError(
                f"pyramid_outputs of encoder {encoder} must be maps of its own: {error_text(error)}."
            ) from error
    layer = Pyramid(network, name=f"{PREFIX}pyramid")
    sizes = [size or SIZE for size in layer.features.input_shape[1:3]]
    try:
        shapes = layer.compute_output_shape((1, *sizes, 3))
        outputs = layer(x)
    except Exception as error:  # of layers that are not ours: KerasHub's MiT fails on an image that is not square
        raise _unfit(encoder, x.shape[1:], error) from error
    maps = {}
    for place in places:
        stride, across = (round(size / side) for size, side in zip(sizes, shapes[place][1:3], strict=True))
        if stride != across and {stride, across} & set(STRIDES):
            raise InputError(
                f"A map of encoder {encoder} must have one stride, got {stride} down and {across} across, for a map of "
                f"shape {shapes[place]}. Channels come last."
            )
        if stride in STRIDES:
            maps[stride] = outputs[place]
    if not maps or max(maps) != output_stride:
        raise InputError(
            f"Encoder {encoder} has maps of strides {', '.join(map(str, sorted(maps))) or 'none of 2 to 32'} and "
            f"cannot be dilated, but output stride {output_stride} is asked of it. deeplabv3 and deeplabv3plus take "
            "an encoder that ends at stride 16 or 8 (output_stride says which), all other decoders one that ends at 32."
        )
    return dict(sorted(maps.items()))


def load_preset(model, encoder, source):
    """Fills the encoder of a built model with the weights of its preset.

    Args: `model`: keras.Model with an encoder of `pyramid`. `encoder`: hub:PRESET. `source`: "preset".
    Returns: the report of `weights.load_encoder_weights`. Raises: ValueError for another source or model.
    """
    layer = next((layer for layer in model.layers if isinstance(layer, Pyramid)), None)
    if layer is None:
        raise InputError(f"Model '{model.name}' has no encoder {encoder}. Load weights of the encoder that it has.")
    if source != "preset":
        raise InputError(f"Encoder {encoder} takes the weights of its preset: encoder_weights='preset', got {source}.")
    found = preset_backbone(encoder, load_weights=True)
    shapes, given = ([tuple(weight.shape) for weight in one.weights] for one in (layer.network, found))
    if shapes != given:
        raise InputError(f"The weights of {encoder} do not fit the encoder of model '{model.name}'. Build it with it.")
    layer.network.set_weights(found.get_weights())
    preprocess = model.get_layer("preprocess")
    preprocess.mean, preprocess.scale = preset_normalization(encoder)
    return {"used": [weight.path for weight in found.weights], "unused": [], "initial": []}
