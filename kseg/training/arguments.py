"""Checks of the arguments of `kseg.train` that import neither Keras nor TensorFlow: these take many seconds."""

import inspect
import json
import os
import sys

from kseg.io.errors import InputError, plain

STRATEGIES = ("auto", "one", "mirrored", "multiworker")


def check_arguments(data_dir, workdir, callbacks):
    """Raise ValueError unless these fit `kseg.train`: paths of two folders, a list of Keras callbacks."""
    for name, path in (("data_dir", data_dir), ("workdir", workdir)):
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise InputError(f"{name} must be the path of a folder, got {path!r}.")
    if not isinstance(callbacks, (list, tuple)):
        raise InputError(f"callbacks must be a list of keras.callbacks.Callback objects, got {callbacks!r}.")
    keras = sys.modules.get("keras")  # nothing is of its classes before it is imported
    for callback in callbacks:
        if keras is None or not isinstance(callback, keras.callbacks.Callback):
            raise InputError(f"callbacks must hold keras.callbacks.Callback objects, got {callback!r} among them.")


def check_strategy(strategy):
    """Raise InputError unless a strategy is one of STRATEGIES."""
    if strategy not in STRATEGIES:
        raise InputError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")


def check_model(model, options):
    """Return the options as JSON types; ValueError unless `build_for_run` takes these as its first two arguments."""
    keras = sys.modules.get("keras")
    if (keras is not None and isinstance(model, keras.Model)) or not (isinstance(model, str) or callable(model)):
        raise InputError(
            "model must be a name of kseg.MODELS or a function without arguments that builds a keras.Model, got "
            f"{model!r}."
        )
    if not isinstance(model, str):
        _check_no_arguments(model)
    options = plain(options)
    if not isinstance(options, (dict, type(None))) or not all(isinstance(name, str) for name in options or ()):
        raise InputError(f"model_options must be a dict of the builder's options by name, got {options!r}.")
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"model_options must hold finite numbers, text, True, False, None, and lists and dicts of these, got "
            f"{options!r} ({error})."
        ) from error
    if taken := {"name", "input_shape", "num_classes"} & set(options or ()):
        raise InputError(f"The run itself sets {', '.join(sorted(taken))}. Leave it out of model_options.")
    if options and not isinstance(model, str):
        raise InputError(f"model_options are for a model given by name, got {options} with a function.")
    return options or {}


def _check_no_arguments(function):
    try:
        inspect.signature(function).bind()
    except TypeError as error:  # Python's own of an argument that is missing
        name = getattr(function, "__name__", type(function).__name__)
        raise InputError(
            f"model must be a function without arguments, but {name} needs some ({error}). Give one that calls it, "
            f"such as lambda: {name}(...), or for a model of kseg its name."
        ) from error
    except ValueError:  # a callable that does not say what it takes
        return
