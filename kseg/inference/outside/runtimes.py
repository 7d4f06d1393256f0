"""Files of other formats opened by their own runtimes: one input, named outputs, and a function from one to the other.

A runtime's own exceptions are of many types, and nothing of kseg's runs inside of it: all of them become InputError.
"""

import contextlib
import dataclasses
import importlib
import os
from collections.abc import Callable, Sequence

import numpy as np

from kseg.inference.outside.file_kinds import ONNX, SAVED_MODEL, TFLITE
from kseg.io.errors import InputError
from kseg.io.text import error_text

_ONNX_TYPES = {"float": "float32", "float16": "float16", "double": "float64"}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output: its name, shape (None where it is free), NumPy type, and scale and zero if it is quantised.

    Its real value is (number - zero) * scale.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype
    scale: float = 0.0
    zero: int = 0


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model in its runtime. run: (array of the input's type, names of outputs) -> {name: array}."""

    input: Tensor
    outputs: tuple[Tensor, ...]
    run: Callable[[np.ndarray, Sequence[str]], dict[str, np.ndarray]]


def open_file(file, kind):
    """Open a model; InputError for one that its runtime cannot read, or a runtime that is not installed.

    Args:
        file: path. kind: ONNX, TFLITE or SAVED_MODEL of `file_kinds`.
    """
    with runtime_errors(f"{file} cannot be opened as {kind}"):
        return {ONNX: _open_onnx, TFLITE: _open_tflite, SAVED_MODEL: _open_saved_model}[kind](file)


@contextlib.contextmanager
def runtime_errors(text):
    """A block in which whatever a runtime raises becomes an InputError that begins with a text."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{text}: {error_text(error)}.") from error


def _package(name, extra, file):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0].replace("_", "-")
        raise InputError(
            f"{file} needs the package {package}, which is not here ({error}). Install it with pip install "
            f"'kseg[{extra}]'."
        ) from error


def _open_onnx(file):
    runtime = _package("onnxruntime", "onnx", file)
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def tensor(one):
        inner = one.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(side if isinstance(side, int) else None for side in one.shape)
        return Tensor(one.name, shape, np.dtype(_ONNX_TYPES.get(inner, inner)))

    given = [tensor(one) for one in session.get_inputs()]
    outputs = tuple(tensor(one) for one in session.get_outputs())

    def run(array, names):
        return dict(zip(names, session.run(names, {given[0].name: array}), strict=True))

    return Opened(_only(given, file), outputs, run)


def _open_tflite(file):
    runtime = _package("ai_edge_litert.interpreter", "litert", file)
    interpreter = runtime.Interpreter(model_path=str(file), num_threads=os.cpu_count())

    def tensor(one):
        scale, zero = one["quantization"]
        shape = tuple(None if side < 0 else int(side) for side in one["shape_signature"])
        return Tensor(one["name"], shape, np.dtype(one["dtype"]), float(scale), int(zero))

    inputs = interpreter.get_input_details()
    given = _only([tensor(one) for one in inputs], file)
    details = interpreter.get_output_details()
    place = inputs[0]["index"]
    state = {"shape": None}

    def run(array, names):
        if state["shape"] != array.shape:
            interpreter.resize_tensor_input(place, array.shape)
            interpreter.allocate_tensors()
            state["shape"] = array.shape
        interpreter.set_tensor(place, array)
        interpreter.invoke()
        return {one["name"]: interpreter.get_tensor(one["index"]) for one in details if one["name"] in names}

    return Opened(given, tuple(tensor(one) for one in details), run)


def _open_saved_model(file):
    try:
        import tensorflow as tf
    except ImportError as error:
        raise InputError(
            f"{file} is a SavedModel, which needs TensorFlow: pip install tensorflow ({error})."
        ) from error

    loaded = tf.saved_model.load(str(file))
    names = list(loaded.signatures)
    if "serving_default" not in names and len(names) != 1:
        raise InputError(
            f"{file} must have the signature serving_default, or one alone, but has {', '.join(names) or 'none'}. "
            "Save it again with one."
        )
    serve = loaded.signatures["serving_default" if "serving_default" in names else names[0]]

    def tensor(name, spec):
        shape = () if spec.shape.rank is None else tuple(spec.shape)
        return Tensor(name, shape, np.dtype(spec.dtype.as_numpy_dtype))

    given = [tensor(name, spec) for name, spec in serve.structured_input_signature[1].items()]
    outputs = tuple(tensor(name, spec) for name, spec in serve.structured_outputs.items())

    def run(array, names, _owner=loaded):  # the variables live as long as what was loaded
        found = serve(**{given[0].name: tf.constant(array)})
        return {name: found[name].numpy() for name in names}

    return Opened(_only(given, file), outputs, run)


def _only(inputs, file):
    if len(inputs) != 1:
        shown = ", ".join(f"{one.name} {one.shape}" for one in inputs)
        raise InputError(f"{file} must have one input, the images, but has {len(inputs)}: {shown}.")
    return inputs[0]
