"""Seeded damage to files: what a bad disk, a torn download or somebody with bad intentions does to bytes."""

import io
import json
import re
import struct
import zipfile
import zlib

import numpy as np

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)
_TOKENS = (b"0", b"-1", b"1e999", b"1.5", b"null", b"true", b'""', b"[]", b"{}", b"NaN", b"9" * 30, b"9" * 5000)
_TOKENS += (b"[" * 100_000, b"\xff\xfe", b"\x00", b"..", b"../../etc/passwd", b"\n", b" # ", b"=")
_TOKENS += (b"--flagfile=case.flags",)
_VALUES = (None, True, False, 0, 1, -1, 255, 256, 2**31, 2**63, 2**70, -(2**70), 0.5, 1e300, float("nan"), float("inf"))
_VALUES += ("", "a", "0", "train_ids", "../x", "\x00", [], {}, [[]], [0], [0, 0, 0], {"a": 1}, "x" * 3000)


def mutate(data, random):
    """Return the bytes with one, two or four changes."""
    data = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        change = CHANGES[random.integers(len(CHANGES))]
        at = int(random.integers(len(data) + 1))
        length = int(2 ** random.uniform(0, 8))
        data = change(data, at, length, random)
    return bytes(data)


def _flip(data, at, length, random):
    if at < len(data):
        data[at] ^= 1 << int(random.integers(8))
    return data


def _overwrite(data, at, length, random):
    data[at : at + length] = random.bytes(min(length, len(data) - at))
    return data


def _number(data, at, length, random):
    size = random.choice([1, 2, 4, 8])
    order = random.choice(["little", "big"])
    value = _NUMBERS[random.integers(len(_NUMBERS))] % 2 ** (8 * int(size))
    return data[:at] + value.to_bytes(int(size), str(order)) + data[at + size :]


def _delete(data, at, length, random):
    return data[:at] + data[at + length :]


def _insert(data, at, length, random):
    return data[:at] + random.bytes(length) + data[at:]


def _repeat(data, at, length, random):
    return data[:at] + data[at : at + length] * 2 + data[at + length :]


def _move(data, at, length, random):
    other = int(random.integers(len(data) + 1))
    data[other : other + length] = data[at : at + length]
    return data


def _zero(data, at, length, random):
    data[at : at + length] = bytes(min(length, len(data) - at))
    return data


def _cut(data, at, length, random):
    return data[:at]


def _token(data, at, length, random):
    """For text: put something in the place of a number or a word, or between them."""
    places = [match.span() for match in re.finditer(rb"[\w.+-]+", data[max(0, at - 200) : at + 200])]
    start, end = places[random.integers(len(places))] if places and random.random() < 0.8 else (min(at, 200),) * 2
    before = max(0, at - 200)
    return data[: before + start] + _TOKENS[random.integers(len(_TOKENS))] + data[before + end :]


CHANGES = (_flip, _flip, _overwrite, _number, _delete, _insert, _repeat, _move, _zero, _cut, _token, _token)


def mutate_json(data, random):
    """Return JSON text in which a value or two are others, or gone, or there twice: well-formed, and wrong."""
    tree = json.loads(data)
    for _ in range(random.integers(1, 3)):
        places = list(_places(tree))
        if places:
            parent, key = places[random.integers(len(places))]
            _change(parent, key, int(random.integers(5)), random)
    return json.dumps(tree).encode()


def _places(tree):
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys):
        yield tree, key
        yield from _places(tree[key])


def _change(parent, key, how, random):
    value = parent[key]
    if how == 0:
        del parent[key]
    elif how == 1 and isinstance(parent, list):
        parent.insert(key, value)
    elif how == 2 and isinstance(value, int):
        parent[key] = value + int(random.integers(-3, 4))
    elif how == 3 and isinstance(value, str):
        parent[key] = value[::-1]
    else:
        parent[key] = _VALUES[random.integers(len(_VALUES))]


def mutate_lines(data, random):
    """Return text in which a line is gone, there twice, somewhere else, or has another word behind its last =."""
    lines = data.splitlines(keepends=True)
    at, other = random.integers(len(lines), size=2)
    line = lines.pop(at)
    how = random.integers(4)
    if how == 1:
        lines[at:at] = [line, line]
    elif how == 2:
        lines.insert(other, line)
    elif how == 3:
        lines.insert(at, line.rpartition(b"=")[0] + b"=" + _TOKENS[random.integers(len(_TOKENS))] + b"\n")
    return b"".join(lines)


def mutate_member(data, random):
    """Return a zip in which one member is damaged and its checksum right for that."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = list(members)[random.integers(len(members))]
    members[name] = (mutate_json if name.endswith(".json") else mutate)(members[name], random)
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return result.getvalue()


def mend_png(data):
    """Return a PNG with the right checksum behind every chunk, so that the damage is not found by them."""
    result = bytearray(data[:8])
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        result += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(result)


def generator(case):
    """The random numbers of a case."""
    return np.random.default_rng([20, case])
