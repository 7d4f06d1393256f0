"""The models by name. A builder: (input_shape, num_classes, *, options) -> keras.Model of float32 logits."""

import importlib
import inspect
import numbers
import os
from collections.abc import Callable
from typing import Any

import keras

from kseg.io.errors import InputError, check_whole, is_whole, plain
from kseg.settings import MODEL_FILES, check_encoder_name, check_model_name, check_model_options, current_options

MODELS: dict[str, Callable[..., keras.Model]] = {
    name: getattr(importlib.import_module(f"kseg.models.{file}"), name) for name, file in MODEL_FILES.items()
}

_LEAST = {"seed": 0, "steps": 0}  # of options that are whole numbers; the others begin at 1


def options_of(name: str) -> list[str]:
    """The names of the options that the builder of a model takes, except `name`, which is the model's own."""
    parameters = inspect.signature(MODELS[name]).parameters.values()
    keywords = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    return [option for option in keywords if option != "name"]


def build_model(
    name: str, input_shape: tuple[int | None, int | None, int], num_classes: int, **options: Any
) -> keras.Model:
    """Builds a model of `MODELS`.

    Args: `name`: a key of `MODELS`. `input_shape`: (H, W, 3), H and W None if the model takes any size.
        `num_classes`: at least 2. `options`: the keyword arguments of that builder, by their former names too.
    Returns: keras.Model, RGB 0..255 (B, H, W, 3) -> float32 logits (B, H, W, num_classes).
    Raises: ValueError for an unknown model or option (it lists them), a bad shape, class count or value of an option.
    """
    check_model_name(name, MODELS)
    input_shape, num_classes, options = plain((input_shape, num_classes, options))
    options = current_options(name, options)
    check_model_options(name, options, options_of(name))
    sizes = tuple(input_shape)[:2] if isinstance(input_shape, (tuple, list)) and len(input_shape) == 3 else (0, 0)
    if any(size is not None and not (is_whole(size) and size >= 1) for size in sizes) or input_shape[2] != 3:
        raise InputError(f"input_shape must be (height, width, 3), sizes positive or None, got {input_shape!r}.")
    if (sizes[0] is None) != (sizes[1] is None):
        raise InputError(f"Height and width must both be given or both be None, got {input_shape}.")
    check_whole("num_classes", num_classes, 2)
    for option, value in options.items():
        _check_option(option, value, inspect.signature(MODELS[name]).parameters[option].default)
    return MODELS[name](tuple(input_shape), num_classes, **options)


def _check_option(option, value, default):
    """Raise InputError unless the value of an option has the type of its default."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InputError(f"{option} must be True or False, got {value!r}.")
    elif isinstance(default, int):
        check_whole(option, value, _LEAST.get(option, 1))
    elif isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < 1:
            raise InputError(f"{option} must be at least 0 and below 1, got {value!r}.")
    elif option in ("depth", "decoder_filters", "aspp_filters"):
        if value is not default:
            check_whole(option, value, 1)
    elif option == "encoder":
        if not isinstance(value, keras.Model) and value is not default:
            check_encoder_name(value)
    elif option in ("rates", "multi_grid"):
        whole = isinstance(value, (tuple, list)) and value and all(is_whole(one) and one >= 1 for one in value)
        if not whole and value is not default:
            raise InputError(f"{option} must be a list of whole numbers of at least 1, got {value!r}.")
    elif option == "encoder_weights":
        if not isinstance(value, (str, os.PathLike)) and value is not default:
            raise InputError(f"{option} must be 'imagenet', the path of a file or None, got {value!r}.")
    elif option in ("initializer", "decoder_initializer") and value is not default:
        try:
            found = keras.initializers.get(value)
        except (ValueError, TypeError) as error:  # Keras' own, of another name or config
            raise InputError(f"{option} must be a Keras initializer, got {value!r}.") from error
        if found is None:
            raise InputError(f"{option} must be a Keras initializer, got {value!r}.")
