"""The models by name. A builder: (input_shape, num_classes, *, options) -> keras.Model of float32 logits.

The builders import Keras, so they are loaded when they are first used: `build_model` refuses a wrong name or option
before that.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kseg.io.errors import InputError, check_whole, is_whole, plain
from kseg.settings import (
    MODEL_FILES,
    check_encoder_name,
    check_model_name,
    check_model_options,
    current_options,
    options_in_source,
)

if TYPE_CHECKING:
    import keras

    MODELS: dict[str, Callable[..., keras.Model]]


def __getattr__(name):
    """Load the builders for `MODELS`, and for the modules that they are in."""
    if name != "MODELS" and name not in MODEL_FILES.values():
        raise AttributeError(f"module 'kseg.models' has no attribute {name!r}")
    _builders()
    return globals()[name]


def _builders():
    """Return `MODELS`; its builders, and Keras with them, are imported at the first call."""
    if not builders_loaded():
        modules = {file: importlib.import_module(f"kseg.models.{file}") for file in MODEL_FILES.values()}
        globals()["MODELS"] = {name: getattr(modules[file], name) for name, file in MODEL_FILES.items()}
    return globals()["MODELS"]


def builders_loaded():
    """Whether `MODELS` is there already, in which a user's own builder may be."""
    return "MODELS" in globals()


def check_name(name):
    """Raise InputError unless a name is one of `MODELS`, where a user's own builder may be; it imports none."""
    check_model_name(name, globals().get("MODELS", MODEL_FILES))


def options_of(name: str) -> dict[str, Any]:
    """The options that the builder of a model takes, {name: default}, except `name`, which is the model's own."""
    parameters = inspect.signature(_builders()[name]).parameters.values()
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
    check_name(name)
    input_shape, num_classes, options = plain((input_shape, num_classes, options))
    options = current_options(name, options)
    check_model_options(name, options, options_of(name) if builders_loaded() else options_in_source(name))
    if isinstance(options.get("encoder"), str):
        check_encoder_name(options["encoder"])
    sizes = tuple(input_shape)[:2] if isinstance(input_shape, (tuple, list)) and len(input_shape) == 3 else (0, 0)
    if any(size is not None and not (is_whole(size) and size >= 1) for size in sizes) or input_shape[2] != 3:
        raise InputError(f"input_shape must be (height, width, 3), sizes positive or None, got {input_shape!r}.")
    if (sizes[0] is None) != (sizes[1] is None):
        raise InputError(f"Height and width must both be given or both be None, got {input_shape}.")
    check_whole("num_classes", num_classes, 2)
    known = options_of(name)
    for option, value in options.items():
        _check_keras_option(option, value, known[option])
    return _builders()[name](tuple(input_shape), num_classes, **options)


def _check_keras_option(option, value, default):
    """Raise InputError unless an encoder, or an initializer, is one."""
    import keras

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
