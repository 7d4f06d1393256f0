"""The bodies of the Open Inference Protocol: bytes to images, label maps to bytes.

Requests and answers are JSON, or JSON followed by the tensors as bytes (the binary tensor data extension, whose header
Inference-Header-Content-Length says how long the JSON is). A request whose JSON has length 0 is one image file.
"""

import base64
import binascii
import dataclasses
import json
import math
import reprlib

import numpy as np

from kseg.io.errors import InputError, is_whole
from kseg.io.images import decode_image, header
from kseg.serving.limits import JSON_BYTES, JSON_NUMBERS, RequestError

INPUTS = {  # name -> datatype, shape; -1 is free
    "images": ("UINT8", (-1, -1, -1, 3)),
    "encoded": ("BYTES", (-1,)),
}
OUTPUTS = {
    "labels": ("UINT8", np.dtype("u1")),
    "confidence": ("FP32", np.dtype("<f4")),
}


@dataclasses.dataclass
class InferRequest:
    """A request that has been read. images: uint8 (B, H, W, 3). outputs: name -> whether as bytes."""

    images: np.ndarray
    outputs: dict
    request_id: str | None = None


def read_request(body, json_length, known_outputs, max_pixels):
    """Return the InferRequest that a body holds.

    Args:
        body: bytes. json_length: how many of them are JSON, text of the header; None: all of them.
        known_outputs: names that the model gives. max_pixels: of all images together.
    Raises:
        RequestError: 400, 413.
    """
    length = _json_length(json_length, len(body))
    rest = memoryview(body)[length:]
    if json_length is not None and length == 0:
        images = _decoded([rest], max_pixels)
        return InferRequest(images, dict.fromkeys(known_outputs, True))
    table = _parsed(memoryview(body)[:length])
    outputs = _wanted(table, known_outputs)
    given = table.get("inputs")
    if not isinstance(given, list) or len(given) != 1:
        raise RequestError(400, f'inputs must be a list of one tensor, "images" or "encoded", got {_shown(given)}.')
    request_id = table.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise RequestError(400, f"id must be a text, got {_shown(request_id)}.")
    return InferRequest(_images(given[0], rest, max_pixels), outputs, request_id)


def _json_length(text, most):
    if text is None:
        return most
    # No int() of a long text: "9" * 5000 is an error of Python's own.
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) > most:
        raise RequestError(
            400,
            f"Inference-Header-Content-Length must be the JSON's bytes of the {most} in the body, got {_shown(text)}.",
        )
    return int(text)


def _parsed(text):
    if len(text) > JSON_BYTES:
        raise RequestError(
            413, f"The JSON of a request may have {JSON_BYTES} bytes, got {len(text)}. Send tensors as binary data."
        )
    try:
        table = json.loads(str(text, "utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"The body must be JSON in UTF-8: {error}.") from error
    if not isinstance(table, dict):
        raise RequestError(400, f"The body must be a JSON object, got {_shown(table)}.")
    return table


def _refuse_constant(name):
    raise ValueError(f"{name} is no JSON")


def _wanted(table, known):
    """Return {name: whether as bytes} of the outputs that a request asks for; all where it names none."""
    binary = _flag(_parameters(table, "The request"), "binary_data_output", False)
    asked = table.get("outputs", [])
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        raise RequestError(400, f"outputs must be a list of objects with a name, got {_shown(asked)}.")
    wanted = {}
    for one in asked:
        name = one.get("name")
        if not isinstance(name, str) or name not in known or name in wanted:
            raise RequestError(400, f"outputs may be {', '.join(known)}, each once, got {_shown(name)}.")
        wanted[name] = _flag(_parameters(one, f"output {name}"), "binary_data", binary)
    return wanted or dict.fromkeys(known, binary)


def _images(given, rest, max_pixels):
    """Return uint8 (B, H, W, 3) of a request's input, whose bytes may be the body's rest."""
    if not isinstance(given, dict) or not isinstance(given.get("name"), str) or given["name"] not in INPUTS:
        raise RequestError(400, f'The input must be an object named "images" or "encoded", got {_shown(given)}.')
    name = given["name"]
    datatype, shape = INPUTS[name]
    if given.get("datatype") != datatype:
        raise RequestError(400, f"The datatype of {name} must be {datatype}, got {_shown(given.get('datatype'))}.")
    dims = given.get("shape")
    fits = isinstance(dims, list) and len(dims) == len(shape) and all(is_whole(side) and side > 0 for side in dims)
    if not fits or any(wanted not in (-1, side) for wanted, side in zip(shape, dims, strict=True)):
        raise RequestError(400, f"The shape of {name} must be {list(shape)}, -1 at least 1, got {_shown(dims)}.")
    if math.prod(dims[:3]) > max_pixels:
        raise RequestError(413, f"The images of a request may have {max_pixels} pixels together, got {_shown(dims)}.")
    size = _parameters(given, name).get("binary_data_size")
    if (size is None) == ("data" not in given):
        raise RequestError(400, f"{name} must have either data or the parameter binary_data_size.")
    if size is None:
        if len(rest):
            raise RequestError(400, f"{len(rest)} bytes follow the JSON, but no input has a binary_data_size.")
        read = _pixels_of_json if name == "images" else _files_of_json
        found = read(given["data"], dims)
    else:
        if not is_whole(size) or size != len(rest):
            raise RequestError(
                400, f"binary_data_size must be the {len(rest)} bytes after the JSON, got {_shown(size)}."
            )
        read = _pixels_of_bytes if name == "images" else _files_of_bytes
        found = read(rest, dims)
    return found if name == "images" else _decoded(found, max_pixels)


def _pixels_of_bytes(data, dims):
    if len(data) != math.prod(dims):
        raise RequestError(400, f"images of shape {dims} are {math.prod(dims)} bytes, got {len(data)}.")
    return np.frombuffer(data, np.uint8).reshape(dims)


def _pixels_of_json(data, dims):
    try:
        values = np.asarray(data)
    except (ValueError, TypeError, OverflowError, RecursionError):  # lists of several lengths, more than 64 deep
        values = np.empty(0, object)
    whole = values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() <= 255
    if not whole or values.size != math.prod(dims) or values.shape not in ((values.size,), tuple(dims)):
        raise RequestError(400, f"data must be {math.prod(dims)} whole numbers of 0..255, flat or of shape {dims}.")
    return values.astype(np.uint8).reshape(dims)


def _files_of_bytes(data, dims):
    """Return the image files in bytes: each its length, 4 bytes little-endian, and itself."""
    files = []
    start = 0
    while start < len(data) and len(files) < dims[0]:
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        files.append(data[start + 4 : end])
        start = end
    if start != len(data) or len(files) != dims[0]:
        raise RequestError(400, f"encoded of shape {dims} must be {dims[0]} times 4 bytes of length and an image file.")
    return files


def _files_of_json(data, dims):
    if not isinstance(data, list) or len(data) != dims[0] or not all(isinstance(text, str) for text in data):
        raise RequestError(400, f"The data of encoded must be a list of {dims[0]} image files as base64.")
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, f"The data of encoded must be base64: {error}.") from error


def _decoded(files, max_pixels):
    """Return uint8 (B, H, W, 3) of image files of one size, turned as their EXIF orientation says."""
    files = [bytes(data) for data in files]
    names = [f"image {i} (counted from 0)" for i in range(len(files))]
    pixels = 0
    try:
        for data, name in zip(files, names, strict=True):
            height, width = header(data, name, upright=False)[0]
            pixels += height * width
            if pixels > max_pixels:
                raise RequestError(413, f"The images of a request may have {max_pixels} pixels together: too many.")
        images = [decode_image(data, name)[0] for data, name in zip(files, names, strict=True)]
    except InputError as error:
        raise RequestError(400, str(error)) from error
    if any(image.shape != images[0].shape for image in images):
        raise RequestError(400, "The images of a request must have one size. Send a request for each size.")
    return np.stack(images) if len(images) > 1 else images[0][None]


def _parameters(holder, what):
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError(400, f"The parameters of {what} must be an object, got {_shown(parameters)}.")
    return parameters


def _flag(parameters, name, default):
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(400, f"{name} must be true or false, got {_shown(value)}.")
    return value


def _shown(value):
    """Return a value of a request as messages show it: short, whatever it is."""
    return reprlib.repr(value)[:200]


def write_answer(request, results, model_name):
    """Return (body, how many bytes of it are JSON; None: all) of an answer.

    Args:
        request: InferRequest. results: name of output -> array (B, H, W).
    Raises:
        RequestError: 413 for more numbers than JSON is good for.
    """
    described = []
    parts = []
    numbers = sum(results[name].size for name, binary in request.outputs.items() if not binary)
    if numbers > JSON_NUMBERS:
        raise RequestError(
            413,
            f"An answer in JSON may have {JSON_NUMBERS} numbers, this one would have {numbers}. Ask for "
            "binary_data, or for labels alone.",
        )
    for name, binary in request.outputs.items():
        datatype, dtype = OUTPUTS[name]
        values = np.ascontiguousarray(results[name], dtype)
        one = {"name": name, "datatype": datatype, "shape": list(values.shape)}
        if binary:
            one["parameters"] = {"binary_data_size": values.nbytes}
            parts.append(values)
        else:
            one["data"] = values.ravel().tolist()
        described.append(one)
    table = {"model_name": model_name, "model_version": "1", "outputs": described}
    if request.request_id is not None:
        table["id"] = request.request_id
    text = json.dumps(table, separators=(",", ":")).encode()
    if not parts:
        return text, None
    return b"".join([text, *parts]), len(text)
