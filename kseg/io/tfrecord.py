"""TFRecord framing and tf.train.Example bytes without TensorFlow, so that preparing data stays small."""

import re
import struct
from collections.abc import Iterator, Mapping

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

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


def _messages():
    """Build tf.train.Example in a pool of our own: TensorFlow in the same process has its own copy."""
    file = descriptor_pb2.FileDescriptorProto(name="kseg_example.proto", package="kseg", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    for name, kind in (
        ("BytesList", field.TYPE_BYTES),
        ("FloatList", field.TYPE_FLOAT),
        ("Int64List", field.TYPE_INT64),
    ):
        file.message_type.add(name=name).field.add(name="value", number=1, type=kind, label=field.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for i, (name, kind) in enumerate(
        (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List"))
    ):
        feature.field.add(
            name=name,
            number=i + 1,
            type=field.TYPE_MESSAGE,
            type_name=f".kseg.{kind}",
            label=field.LABEL_OPTIONAL,
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=field.TYPE_MESSAGE, type_name=".kseg.Feature", label=field.LABEL_OPTIONAL
    )
    features.field.add(
        name="feature",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".kseg.Features.FeatureEntry",
        label=field.LABEL_REPEATED,
    )
    example = file.message_type.add(name="Example")
    example.field.add(
        name="features",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".kseg.Features",
        label=field.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"kseg.{n}")) for n in ("Example", "Features")]


_Example, _Features = _messages()


def serialize_example(values: Mapping[str, bytes | str | int]) -> bytes:
    """Return tf.train.Example bytes with one bytes or int64 value per key; equal values give equal bytes."""
    example = _Example()
    for key, value in values.items():
        feature = example.features.feature[key]
        if isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.bytes_list.value.append(value.encode() if isinstance(value, str) else value)
    return example.SerializeToString(deterministic=True)


def _values(features) -> dict:
    found = {}
    for key, feature in features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        found[key] = values[0] if len(values) == 1 else values
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
    at = start + (_varint(head, 1)[1] if head else 0)
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
