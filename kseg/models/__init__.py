"""The models by name. A builder: (input_shape, num_classes, *, options) -> keras.Model of float32 logits."""

import inspect

from kseg.errors import InputError
from kseg.models import deeplabv3, fcn, segnet, unet

MODELS = {
    "unet": unet.unet,
    "runet": unet.runet,
    "resunet": unet.resunet,
    "r2unet": unet.r2unet,
    "fcn32s": fcn.fcn32s,
    "fcn16s": fcn.fcn16s,
    "fcn8s": fcn.fcn8s,
    "parsenet": fcn.parsenet,
    "segnet": segnet.segnet,
    "segnet_aspp": segnet.segnet_aspp,
    "deeplabv3": deeplabv3.deeplabv3,
}


def options_of(name):
    """The names of the options that the builder of a model takes."""
    parameters = inspect.signature(MODELS[name]).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]


def build_model(name, input_shape, num_classes, **options):
    """Builds a model of `MODELS`.

    Args: `name`: a key of `MODELS`. `input_shape`: (H, W, 3), H and W None where the model takes any size.
        `num_classes`: at least 2. `options`: the keyword arguments of that builder.
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError for an unknown model or option (it lists them), a bad shape or class count.
    """
    if name not in MODELS:
        raise InputError(f"Unknown model {name!r}. Choose one of {', '.join(sorted(MODELS))}.")
    known = options_of(name)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise InputError(f"Model {name!r} has no option {', '.join(unknown)}. Its options are {', '.join(known)}.")
    input_shape = tuple(input_shape)
    sizes = input_shape[:2]
    if len(input_shape) != 3 or input_shape[2] != 3 or any(size is not None and size < 1 for size in sizes):
        raise InputError(f"input_shape must be (height, width, 3), sizes positive or None, got {input_shape}.")
    if (sizes[0] is None) != (sizes[1] is None):
        raise InputError(f"Height and width must both be given or both be None, got {input_shape}.")
    if num_classes < 2:
        raise InputError(f"num_classes must be at least 2, got {num_classes}.")
    try:
        return MODELS[name](input_shape, num_classes, **options)
    except TypeError as error:
        raise InputError(f"Model {name!r} cannot be built with {options}: {error}.") from error
