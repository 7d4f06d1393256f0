"""TFRecord framing and tf.train.Example bytes without TensorFlow, so that preparing data stays small."""

import re
import struct
from collections.abc import Iterator, Mapping

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format

from kseg.io.errors import InputError
from kseg.io.files import open_binary

HEADER_BYTES = 12  # uint64 length, uint32 masked crc32c of those eight bytes
FOOTER_BYTES = 4  # uint32 masked crc32c of the payload
MAX_BYTES = 2**30  # of a record; protocol buffers end at twice that


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """Return the payload in TFRecord framing: length, its checksum, the payload, its checksum."""
    length = struct.pack("<Q", len(payload))
    return b"".join((length, struct.pack("<I", _masked_crc(length)), payload, struct.pack("<I", _masked_crc(payload))))


def _corrupt(path, offset, position, why: str) -> InputError:
    which = f"The record at byte {offset}" if position is None else f"Record {position}"
    return InputError(f"{which} of shard {path} is corrupt ({why}). Prepare the data again or delete the shard.")


def _length(file, path, offset, position) -> int:
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        raise _corrupt(path, offset, position, f"the file ends inside its header, {len(header)} of 12 bytes")
    length, crc = struct.unpack("<QI", header)
    if crc != _masked_crc(header[:8]):
        raise _corrupt(path, offset, position, f"length checksum {_masked_crc(header[:8]):08x}, stored {crc:08x}")
    if length > MAX_BYTES:
        raise _corrupt(path, offset, position, f"it claims {length:,} bytes, but at most {MAX_BYTES:,} are read")
    return length


def read_record(path: str, offset: int, position: int | None = None) -> bytes:
    """Return the payload of the record that starts at a byte offset; both checksums are checked.

    Args:
        path: shard file, local or a URL ("gs://...", needs TensorFlow).
        offset: of the record's first byte in the file.
        position: number of the record in its shard, for the error message.

    Raises:
        ValueError: a checksum differs or the file ends early; names shard and position.
        OSError: the file cannot be opened.
    """
    offset = int(offset)
    with open_binary(path) as file:
        file.seek(offset)
        length = _length(file, path, offset, position)
        body = file.read(length + FOOTER_BYTES)
    if len(body) < length + FOOTER_BYTES:
        raise _corrupt(path, offset, position, f"the file ends inside it, {len(body)} of {length + 4} bytes")
    payload = body[:length]
    crc = struct.unpack("<I", body[length:])[0]
    if crc != _masked_crc(payload):
        raise _corrupt(path, offset, position, f"payload checksum {_masked_crc(payload):08x}, stored {crc:08x}")
    return payload


_PROTO = """
name: "kseg_example.proto" package: "kseg" syntax: "proto3"
message_type { name: "BytesList" field { name: "value" number: 1 type: TYPE_BYTES label: LABEL_REPEATED } }
message_type { name: "FloatList" field { name: "value" number: 1 type: TYPE_FLOAT label: LABEL_REPEATED } }
message_type { name: "Int64List" field { name: "value" number: 1 type: TYPE_INT64 label: LABEL_REPEATED } }
message_type {
  name: "Feature"
  oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 type_name: ".kseg.BytesList" type: TYPE_MESSAGE oneof_index: 0 }
  field { name: "float_list" number: 2 type_name: ".kseg.FloatList" type: TYPE_MESSAGE oneof_index: 0 }
  field { name: "int64_list" number: 3 type_name: ".kseg.Int64List" type: TYPE_MESSAGE oneof_index: 0 }
}
message_type {
  name: "Features"
  nested_type {
    name: "FeatureEntry"
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2 type_name: ".kseg.Feature" type: TYPE_MESSAGE }
    options { map_entry: true }
  }
  field { name: "feature" number: 1 type_name: ".kseg.Features.FeatureEntry" type: TYPE_MESSAGE label: LABEL_REPEATED }
}
message_type {
  name: "Example"
  field { name: "features" number: 1 type_name: ".kseg.Features" type: TYPE_MESSAGE }
}
"""  # tf.train.Example


def _messages():
    """Build tf.train.Example in a pool of our own: TensorFlow in the same process has its own copy."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_PROTO, descriptor_pb2.FileDescriptorProto()))
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"kseg.{n}")) for n in ("Example", "Features")]


_Example, _Features = _messages()


def serialize_example(values: Mapping[str, bytes | str | int]) -> bytes:
    """Return tf.train.Example bytes with one bytes or int64 value per key; equal values give equal bytes."""
    example = _Example()
    for key, value in values.items():
        feature = example.features.feature[key]
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.bytes_list.value.append(value)
    return example.SerializeToString(deterministic=True)


def _values(features) -> dict:
    found = {}
    for key, feature in features.feature.items():
        kind = feature.WhichOneof("kind")
        values = []
        if kind:
            values = list(getattr(feature, kind).value)
        found[key] = values
        if len(values) == 1:
            found[key] = values[0]
    return found


def parse_example(payload: bytes) -> dict:
    """Return a tf.train.Example as key -> value (bytes, int or float), a list if it holds none or several.

    Raises:
        ValueError: the bytes are not a tf.train.Example.
    """
    try:
        return _values(_Example.FromString(payload).features)
    except message.DecodeError as error:
        raise InputError(f"{len(payload)} bytes are not a tf.train.Example ({error}).") from None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise InputError("a number runs past the end")


def _small_features(file, start: int, end: int) -> dict:
    """Read the features of at most 512 bytes of the Example at bytes start..end, seeking past the images."""
    found = {}
    file.seek(start)
    head = file.read(16)
    if end > start and (not head or head[0] != 0x0A):  # field 1 of Example, length-delimited
        raise InputError("the record is not a tf.train.Example")
    at = start
    if head:
        at += _varint(head, 1)[1]
    while at < end:
        file.seek(at)
        head = file.read(16)
        if head[0] != 0x0A:  # field 1 of Features: one map entry
            raise InputError("the record is not a tf.train.Example")
        length, used = _varint(head, 1)
        if length <= 512:
            file.seek(at)
            found |= _values(_Features.FromString(file.read(used + length)))
        at += used + length
    return found


def check_layout(places, sizes) -> None:
    """Raise ValueError unless records fill their shards, each once, in order and without a gap.

    Args:
        places: (shard's number, offset, payload's bytes) of each record. sizes: bytes of each shard.
    """
    ends = [0] * len(sizes)
    last = 0
    for shard, offset, length in places:
        if shard < last or offset != ends[shard]:
            raise InputError(f"the record listed at byte {offset} of shard {shard} is out of place")
        ends[shard] = offset + HEADER_BYTES + length + FOOTER_BYTES
        last = shard
    if ends != list(sizes):
        raise InputError(f"its records end at bytes {ends} of shards with {list(sizes)} bytes: some are not listed")


def scan(path: str) -> Iterator[tuple[int, int, dict]]:
    """Yield (offset, payload length, small features) of every record of a shard, without reading the images.

    The length checksums are checked, payload checksums are not (read_record checks them).

    Raises:
        ValueError: the file is not a TFRecord file of tf.train.Example; names file and record.
    """
    with open_binary(path) as file:
        file.seek(0, 2)
        size = file.tell()
        offset = 0
        position = 0
        while offset < size:
            file.seek(offset)
            length = _length(file, path, offset, position)
            start = offset + HEADER_BYTES
            if start + length + FOOTER_BYTES > size:
                raise _corrupt(path, offset, position, f"the file ends inside it, at byte {size}")
            try:
                small = _small_features(file, start, start + length)
            except (InputError, IndexError, message.DecodeError) as error:
                raise _corrupt(path, offset, position, str(error)) from None
            yield offset, length, small
            offset = start + length + FOOTER_BYTES
            position += 1


SHARD_NAME = re.compile(r"^(?P<split>.+)-(?P<i>\d{5})-of-(?P<n>\d{5})(\.tfrecord)?$")
