"""The work of preparing one frame or one shard, as worker processes do it: check, convert, write."""

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass

import numpy as np

from kseg.data.datasets.listing import Frame, Problem, Reference, Source, read_bytes
from kseg.io import images
from kseg.io.errors import InputError
from kseg.io.files import write_atomic, writing
from kseg.io.text import count_text, size_text
from kseg.io.tfrecord import FOOTER_BYTES, HEADER_BYTES, frame, serialize_example

STATS = ".stats.json"  # a finished shard's sidecar, until dataset.json takes its content


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: where, from what, and the options. `fingerprint` changes when any of it does."""

    path: str
    split: str
    frames: tuple[Frame, ...]
    fingerprint: str
    store_size: tuple[int, int] | None
    image_format: str | None


def check_frame(source: Source, item: Frame) -> list[Problem]:
    """Decode all files of a frame and return its problems, by file name."""
    problems = []
    sizes = {}
    data = b""
    with _noting(problems, source, item.image):
        data = read_bytes(item.image)
        shown = source.shown(item.image)
        sizes["image"] = images.decode_image(data, shown)[0].shape[:2]
    with _noting(problems, source, item.label):
        ids = source.label(item.label)[0]
        sizes["label"] = ids.shape
        problems += unknown_ids(source, item, ids)
    if item.instance is not None:
        with _noting(problems, source, item.instance):
            shown = source.shown(item.instance)
            sizes["instance map"] = images.upright_png(read_bytes(item.instance), shown)[1]
    if len(set(sizes.values())) > 1:
        sizes_text = ", ".join(f"{what} {size_text(size)}" for what, size in sizes.items())
        turned = _turned(data, sizes)
        line = f"{source.shown(item.image)}: sizes differ: {sizes_text}{turned}"
        problems.append(Problem(f"sizes{turned}", line))
    return problems


def _turned(data: bytes, sizes: dict) -> str:
    """Return what explains sizes that differ, where the photograph's EXIF orientation does, else ""."""
    if "image" not in sizes or sizes.get("label") != sizes["image"][::-1] or images.orientation(data, "image") == 1:
        return ""
    return (
        "; its EXIF orientation rotates the photograph, but the label is drawn on the unrotated one. "
        "Rotate the label, or remove the orientation from the photograph"
    )


def unknown_ids(source: Source, item: Frame, ids: np.ndarray) -> list[Problem]:
    """Return a problem where a label holds ids that the dataset does not have."""
    counts = np.bincount(ids.ravel(), minlength=256)
    wrong = [i for i in np.flatnonzero(counts).tolist() if i not in source.info.known_ids]
    if not wrong:
        return []
    shown = ", ".join(f"{i} in {count_text(counts[i], 'pixel')}" for i in wrong[:5])
    if wrong[5:]:
        shown += ", ..."
    line = f"{source.shown(item.label)}: ids that {source.info.name} does not have: {shown}"
    if images.is_one_bit(read_bytes(item.label), source.shown(item.label)):
        line += "; a 1-bit image holds 0 and 1, not 0 and 255: export 8-bit masks, or list those ids in classes.json"
        return [Problem("ids of 1 bit", line)]
    return [Problem("ids", line)]


@contextlib.contextmanager
def _noting(problems: list[Problem], source: Source, reference: Reference):
    """A block whose InputError becomes a problem; errors that differ only in file and numbers have one cause."""
    try:
        yield
    except InputError as error:
        cause = str(error).replace(str(reference), "").replace(source.shown(reference), "")
        problems.append(Problem(re.split(r"[(:\d]", cause.lstrip(": "))[0].strip(), str(error)))


def write_shard(source: Source, task: ShardTask) -> dict:
    """Write a shard under a temporary name, sync, rename, then its sidecar; return the sidecar's content.

    Sidecar: fingerprint, bytes, sha256, records ([offset, length, name, height, width]) and pixel counts.
    """
    temporary = f"{task.path}.tmp-{os.getpid()}"
    digest = hashlib.sha256()
    records = []
    counts = np.zeros(256, np.int64)
    offset = 0
    try:
        with writing(task.path), open(temporary, "wb") as file:
            for item in task.frames:
                values, ids = _record(source, task, item)
                counts += np.bincount(ids.ravel(), minlength=256)
                framed = frame(serialize_example(values))
                file.write(framed)
                digest.update(framed)
                length = len(framed) - HEADER_BYTES - FOOTER_BYTES
                records.append([offset, length, item.name, values["image/height"], values["image/width"]])
                offset += len(framed)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, task.path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
    stats = {
        "fingerprint": task.fingerprint,
        "bytes": offset,
        "sha256": digest.hexdigest(),
        "records": records,
        "pixel_counts": {str(i): int(counts[i]) for i in np.flatnonzero(counts)},
    }
    write_atomic(task.path + STATS, json.dumps(stats).encode())
    return stats


def finished_stats(task: ShardTask) -> dict | None:
    """Return the sidecar of a shard that an earlier run finished from the same origin, else None."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with open(task.path + STATS, encoding="utf-8") as file:
            stats = json.load(file)
        if stats["fingerprint"] == task.fingerprint and os.path.getsize(task.path) == stats["bytes"]:
            return stats
    return None  # no shard, or not ours: it is written again


def _record(source: Source, task: ShardTask, item: Frame) -> tuple[dict, np.ndarray]:
    """Return (Example values, uint8 raw ids) of a frame, upright; the files' own bytes if nothing changes.

    A photograph that TensorFlow would decode to other pixels (rotated by EXIF, CMYK, WebP, TIFF, BMP) is encoded again:
    as PNG, but a JPEG that is resized too stays one.
    """
    image_bytes = read_bytes(item.image)
    ids, label_bytes = source.label(item.label)
    shown = source.shown(item.image)
    (height, width), image_format = images.header(image_bytes, shown)
    instance = item.instance and images.upright_png(read_bytes(item.instance), source.shown(item.instance))[0]
    size = task.store_size
    if size == (height, width):
        size = None
    plain = images.is_plain(image_bytes, shown)
    if size or not plain or task.image_format not in (None, image_format):
        image = images.decode_image(image_bytes, shown)[0]
        if size:
            image = images.resize(image, size)
        else:
            image_format = "png"
        image_format = task.image_format or image_format
        image_bytes = images.encode(image, image_format)
    if size:
        height, width = size
        ids = images.resize(ids, size, nearest=True)
        label_bytes = images.encode(ids)
        instance = instance and images.resize_png(instance, size)
    if ids.shape != (height, width):
        raise InputError(f"{shown} changed while it was read. Run the same command again.")
    values = {
        "image/encoded": image_bytes,
        "image/filename": item.name,
        "image/format": image_format,
        "image/height": height,
        "image/width": width,
        "image/channels": 3,
        "image/segmentation/class/encoded": label_bytes,
        "image/segmentation/class/format": "png",
        "image/segmentation/class/label_space": f"{source.info.name}/raw",
    }
    if instance is not None:
        values["image/segmentation/instance/encoded"] = instance
        values["image/segmentation/instance/format"] = "png"
    return values, ids
