"""The models by name. A builder: (input_shape, num_classes, *, options) -> keras.Model of float32 logits."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import keras

from kseg.io.errors import InputError, check_whole, is_whole, plain
from kseg.settings import MODEL_FILES, check_encoder_name, check_model_name, check_model_options, current_options

MODELS: dict[str, Callable[..., keras.Model]] = {
    name: getattr(importlib.import_module(f"kseg.models.{file}"), name) for name, file in MODEL_FILES.items()
}


def options_of(name: str) -> dict[str, Any]:
    """The options that the builder of a model takes, {name: default}, except `name`, which is the model's own."""
    parameters = inspect.signature(MODELS[name]).parameters.values()
    keywords = {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    return {option: default for option, default in keywords.items() if option != "name"}


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
    known = options_of(name)
    check_model_options(name, options, known)
    sizes = tuple(input_shape)[:2] if isinstance(input_shape, (tuple, list)) and len(input_shape) == 3 else (0, 0)
    if any(size is not None and not (is_whole(size) and size >= 1) for size in sizes) or input_shape[2] != 3:
        raise InputError(f"input_shape must be (height, width, 3), sizes positive or None, got {input_shape!r}.")
    if (sizes[0] is None) != (sizes[1] is None):
        raise InputError(f"Height and width must both be given or both be None, got {input_shape}.")
    check_whole("num_classes", num_classes, 2)
    for option, value in options.items():
        _check_keras_option(option, value, known[option])
    return MODELS[name](tuple(input_shape), num_classes, **options)


def _check_keras_option(option, value, default):
    """Raise InputError unless an encoder, or an initializer, is one."""
    if value is default:
        return
    if option == "encoder" and not isinstance(value, keras.Model):
        check_encoder_name(value)
    if option in ("initializer", "decoder_initializer"):
        try:
            found = keras.initializers.get(value)
        except (ValueError, TypeError) as error:  # Keras' own, of another name or config
            raise InputError(f"{option} must be a Keras initializer, got {value!r}.") from error
        if found is None:
            raise InputError(f"{option} must be a Keras initializer, got {value!r}.")
