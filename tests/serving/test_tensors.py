"""Bodies of requests: what is read, and what each kind of damaged or hostile body gets."""

import base64
import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kseg.serving import tensors
from kseg.serving.limits import JSON_BYTES, RequestError
from kseg.serving.tensors import InferRequest, read_request, write_answer

OUTPUTS = ("labels", "confidence")
IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(1, 2, 3, 3)
MOST = 100  # pixels


def tensor(**changes):
    """A good input, with changes; None takes a key out."""
    good = {"name": "images", "datatype": "UINT8", "shape": [1, 2, 3, 3], "data": IMAGE.ravel().tolist()}
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def body(*inputs, **table):
    return json.dumps({"inputs": list(inputs), **table}).encode()


def binary(parameter_size, data, **changes):
    """A body whose only input follows as bytes, and its JSON's length."""
    text = body(tensor(data=None, parameters={"binary_data_size": parameter_size}, **changes))
    return text + data, str(len(text))


def png(height=2, width=3, **options):
    file = io.BytesIO()
    pixels = np.arange(height * width * 3).reshape(height, width, 3) % 256
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG", **options)
    return file.getvalue()


def claimed_png(width, height, pixels=b"\0"):
    """A PNG whose header claims a size, whatever its pixels are."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def encoded(*files, count=None, **changes):
    data = b"".join(struct.pack("<I", len(file)) + file for file in files)
    shape = [len(files) if count is None else count]
    return binary(len(data), data, **{"name": "encoded", "datatype": "BYTES", "shape": shape, **changes})


def read(data, json_length=None, outputs=OUTPUTS, most=MOST):
    return read_request(data, json_length, outputs, most)


def refused(data, json_length=None, **options):
    with pytest.raises(RequestError) as caught:
        read(data, json_length, **options)
    assert len(caught.value.message) < 600
    return caught.value.status


@pytest.mark.parametrize("data", [IMAGE.tolist(), IMAGE.ravel().tolist()], ids=["of its shape", "flat"])
def test_images_in_json(data):
    request = read(body(tensor(data=data), id="7"))
    assert np.array_equal(request.images, IMAGE) and request.images.dtype == np.uint8
    assert request.request_id == "7" and request.outputs == {"labels": False, "confidence": False}


def test_images_as_bytes():
    assert np.array_equal(read(*binary(18, IMAGE.tobytes())).images, IMAGE)


def test_image_files_in_each_way_and_upright():
    """EXIF orientation 6: the viewer turns the picture by 90 degrees clockwise, so its first row is its last."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.asarray(Image.open(io.BytesIO(png())))
    turned = np.rot90(stored, -1)
    for data, length in [
        encoded(png(exif=exif)),
        (png(exif=exif), "0"),
        (
            body(tensor(name="encoded", datatype="BYTES", shape=[1], data=[base64.b64encode(png(exif=exif)).decode()])),
            None,
        ),
    ]:
        request = read(data, length)
        assert np.array_equal(request.images, turned[None])
    assert request.outputs == {"labels": False, "confidence": False}
    assert read(png(), "0").outputs == {"labels": True, "confidence": True}  # a file alone says nothing of the answer
    assert read(*encoded(png(), png())).images.shape == (2, 2, 3, 3)


def test_outputs_are_those_asked_for_in_their_order_and_form():
    asked = [{"name": "confidence"}, {"name": "labels", "parameters": {"binary_data": False}}]
    request = read(body(tensor(), outputs=asked, parameters={"binary_data_output": True}))
    assert list(request.outputs.items()) == [("confidence", True), ("labels", False)]


JSON = {
    "empty": b"",
    "no JSON": b"images",
    "a list": b"[]",
    "not UTF-8": b'{"id": "\xff"}',
    "UTF-16": '{"inputs": []}'.encode("utf-16"),
    "NaN": body(tensor()).replace(b"[0,", b"[NaN,").replace(b"[0, ", b"[NaN, "),
    "infinity": b'{"inputs": [{"shape": [-Infinity]}]}',
    "deep": b'{"inputs": ' + b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a number of 5000 digits": b'{"inputs": ' + b"9" * 5000 + b"}",
    "no inputs": b"{}",
    "two inputs": body(tensor(), tensor()),
    "input no object": body([1]),
    "unknown input": body(tensor(name="mask")),
    "name a list": body(tensor(name=["images"])),
    "id a number": body(tensor(), id=3),
    "outputs no list": body(tensor(), outputs={}),
    "output no object": body(tensor(), outputs=["labels"]),
    "output without name": body(tensor(), outputs=[{}]),
    "unknown output": body(tensor(), outputs=[{"name": "logits"}]),
    "output twice": body(tensor(), outputs=[{"name": "labels"}] * 2),
    "parameters no object": body(tensor(), parameters=[1]),
    "parameter no flag": body(tensor(), parameters={"binary_data_output": "no"}),
    "input's parameters": body(tensor(parameters=5)),
    "output's parameters": body(tensor(), outputs=[{"name": "labels", "parameters": {"binary_data": 1}}]),
    "no data": body(tensor(data=None)),
    "data and bytes": body(tensor(parameters={"binary_data_size": 0})),
    "ragged": body(tensor(data=[[1, 2], [3]])),
    "too few": body(tensor(data=[1, 2])),
    "no numbers": body(tensor(data=[])),
    "another layout": body(tensor(data=IMAGE.reshape(1, 3, 2, 3).tolist())),
    "64 deep": body(tensor(data=json.loads("[" * 900 + "]" * 900))),
    "256": body(tensor(data=[256] * 18)),
    "negative": body(tensor(data=[-1] * 18)),
    "fractions": body(tensor(data=[0.5] * 18)),
    "texts": body(tensor(data=["1"] * 18)),
    "truths": body(tensor(data=[True] * 18)),
    "nothings": body(tensor(data=[None] * 18)),
    "beyond 64 bits": body(tensor(data=[2**70] * 18)),
    "data a text": body(tensor(data="1" * 18)),
    "bytes that no input has": (body(tensor()) + b"abc", str(len(body(tensor())))),
}


@pytest.mark.parametrize("given", JSON.values(), ids=JSON)
def test_a_damaged_or_hostile_json_is_400(given):
    data, length = given if isinstance(given, tuple) else (given, None)
    assert refused(data, length) == 400


@pytest.mark.parametrize("datatype", ["FP32", "INT8", "BYTES", "uint8", "", 8, None, ["UINT8"]])
def test_a_wrong_datatype_is_400(datatype):
    assert refused(body(tensor(datatype=datatype))) == 400


@pytest.mark.parametrize(
    ("shape", "status"),
    [
        ([1, -2, -3, 3], 400),
        ([1, 0, 3, 3], 400),
        ([1, 2.0, 3, 3], 400),
        ([True, 2, 3, 3], 400),
        ([1, 2, "3", 3], 400),
        ([2, 3, 3], 400),
        ([1, 2, 3, 4], 400),
        ([1, 1, 2, 3, 3], 400),
        ("1233", 400),
        ({}, 400),
        (None, 400),
        ([1, 3, 3, 3], 400),  # more than there are
        ([1, 11, 10, 3], 413),  # 110 pixels of 100
        ([2**62, 2**62, 2**62, 3], 413),  # 0 in 64 bits
        ([int("9" * 4000), 1, 1, 3], 413),
    ],
)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_shapes_that_lie(shape, status, as_bytes):
    data, length = binary(18, IMAGE.tobytes(), shape=shape) if as_bytes else (body(tensor(shape=shape)), None)
    assert refused(data, length) == status


@pytest.mark.parametrize("size", [17, 19, -18, 18.0, True, "18", 2**64, None])
def test_a_size_of_bytes_that_lies_is_400(size):
    assert refused(*binary(size, IMAGE.tobytes())) == 400


@pytest.mark.parametrize("length", ["-1", "", "x", "1e3", "+5", " 5", "\xb2", "99999", "9" * 5000])
def test_a_length_of_the_json_that_lies_is_400(length):
    assert refused(body(tensor()), length) == 400


def test_more_json_than_is_read_is_413():
    assert refused(b" " * (JSON_BYTES + 1)) == 413


FILES = {
    "no file": encoded(count=1),
    "an empty file": encoded(b""),
    "no image": encoded(b"not an image"),
    "cut off": encoded(png()[:-20]),
    "damaged": encoded(png()[:40] + b"\0\0" + png()[42:]),
    "two sizes": encoded(png(), png(3, 2)),
    "one file more": encoded(png(), png(), count=1),
    "one file fewer": encoded(png(), count=2),
    "a length that lies": binary(8, b"\xff\xff\xff\xff1234", name="encoded", datatype="BYTES", shape=[1]),
    "half a length": binary(3, b"\1\0\0", name="encoded", datatype="BYTES", shape=[1]),
    "claims 900 million pixels": encoded(claimed_png(30_000, 30_000)),
    "pixels that do not unpack": encoded(claimed_png(8, 8, b"pixels")),
    "a claim of 2**31": encoded(claimed_png(2**31 - 1, 2**31 - 1)),
    "no file at all": (b"", "0"),
    "a shape of two": encoded(png(), shape=[1, 1]),
    "no base64": (body(tensor(name="encoded", datatype="BYTES", shape=[1], data=["?"])), None),
    "other letters": (body(tensor(name="encoded", datatype="BYTES", shape=[1], data=["é"])), None),
    "numbers": (body(tensor(name="encoded", datatype="BYTES", shape=[1], data=[1])), None),
}


@pytest.mark.parametrize("given", FILES.values(), ids=FILES)
def test_a_damaged_or_hostile_image_file_is_400(given):
    assert refused(*given) == 400


def test_too_many_pixels_are_413_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(tensors, "decode_image", None)
    assert refused(*encoded(claimed_png(101, 1))) == 413
    assert refused(*encoded(png(6, 9), png(6, 9))) == 413  # 54 each
    assert refused(*encoded(png(), count=101)) == 413


def test_an_answer_is_json_then_bytes_in_the_order_of_the_outputs():
    results = {"labels": np.array([[[1, 2]]], np.int32), "confidence": np.array([[[0.5, 0.25]]])}
    request = InferRequest(IMAGE, {"confidence": True, "labels": True}, "7")
    data, length = write_answer(request, results, "m")
    table = json.loads(data[:length])
    assert table["id"] == "7" and [one["name"] for one in table["outputs"]] == ["confidence", "labels"]
    # FP32 has 4 bytes little-endian, UINT8 one.
    assert data[length:] == struct.pack("<ff", 0.5, 0.25) + b"\1\2"
    data, length = write_answer(InferRequest(IMAGE, {"labels": False}), results, "m")
    assert length is None
    assert json.loads(data) == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "labels", "datatype": "UINT8", "shape": [1, 1, 2], "data": [1, 2]}],
    }


def test_an_answer_of_more_numbers_than_json_is_good_for_is_413(monkeypatch):
    monkeypatch.setattr(tensors, "JSON_NUMBERS", 3)
    results = {"labels": np.zeros((1, 2, 2), np.uint8)}
    with pytest.raises(RequestError, match="may have 3 numbers, this one would have 4"):
        write_answer(InferRequest(IMAGE, {"labels": False}), results, "m")
    assert write_answer(InferRequest(IMAGE, {"labels": True}), results, "m")[1]
