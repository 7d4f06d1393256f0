"""Record folders: TFRecord shards and dataset.json, the manifest of what they hold and where."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from kseg.data.datasets import DATASETS, cityscapes
from kseg.data.groups import check_rule
from kseg.data.labels import DatasetInfo, label_set_of, with_current_names
from kseg.io.errors import InputError
from kseg.io.files import checked_path, is_url, join, list_files, open_binary, reading, sha256_of
from kseg.io.images import decode_image, decode_label
from kseg.io.text import first_names
from kseg.io.tfrecord import SHARD_NAME, check_layout, parse_example, read_record, scan

__all__ = ["Manifest", "Split", "decode", "load_manifest", "parse_example", "read_record", "scan"]

MANIFEST = "dataset.json"
FORMAT_VERSION = 1
ORIGIN = "source.json"  # what the records were made from: marks a folder as ours before dataset.json is there
NO_VALIDATION = "training needs a validation split: move some of the images, and labels, to val, and prepare again"
LABEL_SPACES = ("train_ids", "label_ids")  # of records that do not say themselves which ids they hold


@dataclass(frozen=True, eq=False)
class Split:
    """The records of one split, in file-name order; all lists are as long as the split, but `shards`.

    shards: paths (or URLs) of the shard files. shard: int (n,), which of them holds a record. offset: int64
    (n,), its first byte there. names, heights, widths: of the frames (pixels as stored). pixel_counts: raw id
    -> pixels in the split's labels; empty where unknown (records that have no dataset.json).
    """

    name: str
    shards: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    names: tuple[str, ...]
    heights: np.ndarray
    widths: np.ndarray
    pixel_counts: dict[int, int] = field(default_factory=dict)

    def __len__(self):
        return len(self.names)

    @cached_property
    def position(self) -> np.ndarray:
        """Int (n,): the number of each record in its shard, as error messages name it."""
        return np.arange(len(self)) - np.searchsorted(self.shard, self.shard)

    def common_size(self) -> tuple[int, int]:
        """Return the (height, width) of all images, or raise ValueError if they have several."""
        sizes = sorted(set(zip(self.heights.tolist(), self.widths.tolist(), strict=True)))
        if len(sizes) > 1:
            shown = first_names([f"{w}x{h}" for h, w in sizes], 4)
            raise InputError(f"The images have {len(sizes)} sizes ({shown}). Give --height and --width.")
        return sizes[0]

    def place(self, index: int) -> str:
        """Return "Record 17 of shard PATH" for record `index`."""
        return f"Record {self.position[index]} of shard {self.shards[self.shard[index]]}"

    def read(self, index: int) -> bytes:
        """Return the Example bytes of record `index`, checksums checked (ValueError names the shard)."""
        return read_record(self.shards[self.shard[index]], self.offset[index], int(self.position[index]))


@dataclass(frozen=True, eq=False)
class Manifest:
    """What a record folder holds: the dataset's ids and label sets, its splits, and a digest to compare by.

    data_dir: the folder. info: DatasetInfo. splits: name -> Split. label_space: which ids the labels hold
    ("cityscapes/raw"). kseg_version: that wrote it ("" for foreign records). digest: sha256 of dataset.json
    (of the listing for foreign records). options: how it was prepared. checksums: shard path ->
    sha256. drive: the dataset's rule for the drive of a frame (`kseg.data.datasets.Dataset`).
    """

    data_dir: str
    info: DatasetInfo
    splits: dict[str, Split]
    label_space: str
    kseg_version: str
    digest: str
    options: dict[str, Any] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    drive: str = ""

    def split(self, name: str) -> Split:
        """Return the split of that name; an unknown one is a ValueError that lists the splits."""
        if not isinstance(name, str) or name not in self.splits:
            raise InputError(f"{self.data_dir} has no split {name!r}. Choose one of: {', '.join(self.splits)}.")
        return self.splits[name]

    def verify(self) -> None:
        """Read all shards whole; ValueError names a shard whose sha256 is not the manifest's."""
        for path, wanted in self.checksums.items():
            found = sha256_of(path)
            if found != wanted:
                raise InputError(f"Shard {path} is corrupt (sha256 {found[:12]}..., stored {wanted[:12]}...).")


def decode(payload: bytes) -> tuple[str, np.ndarray, np.ndarray]:
    """Return (name, uint8 RGB image (H, W, 3), uint8 label (H, W) of the ids as stored) of a record.

    The pixels are those that are stored: an EXIF orientation in the image does not turn them.

    Raises:
        ValueError: the bytes are not a record of an image and a label, or one of them does not decode.
    """
    name, image, label = encoded(payload)
    pixels = decode_image(image, f"image of record {name}", upright=False)[0]
    return name, pixels, decode_label(label, f"label of record {name}", upright=False)[0]


def encoded(payload: bytes) -> tuple[str, bytes, bytes]:
    """Return (name, image, label) of a record, both as the bytes of a file; ValueError if it has no such bytes."""
    example = parse_example(payload)
    keys = ("image/encoded", "image/segmentation/class/encoded")
    missing = [key for key in keys if not isinstance(example.get(key), bytes)]
    if missing:
        raise InputError(f"The record is not an image with a label: it lacks {', '.join(missing)}.")
    return _text(example.get("image/filename")), *(example[key] for key in keys)


def _text(value) -> str:
    """Return a feature that should hold a name; "" where it holds none."""
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def record_files(data_dir) -> list[str]:
    """Return the paths in a local record folder that no output may touch; none if it is a URL or does not exist."""
    if is_url(data_dir) or not os.path.isdir(data_dir):
        return []
    shards = [name for name in list_files(data_dir) if SHARD_NAME.match(name)]
    return [os.path.join(data_dir, name) for name in (MANIFEST, ORIGIN, *shards)]


def load_manifest(data_dir, *, label_space: str | None = None) -> Manifest:
    """Read the manifest of a record folder, or index shards that another tool's converter wrote.

    Args:
        data_dir: folder or URL ("gs://...") with dataset.json and shards. Without dataset.json, shards named
            as DeepLab's converter does ("train-00000-of-00010", with or without .tfrecord) are indexed.
        label_space: only for the latter, which hold Cityscapes labels as "train_ids" (0..18, 255 void) or
            "label_ids" (0..33).

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: not a finished record folder, another format version, a shard missing or of another size,
            a corrupt shard, a label space missing, unknown or given for a folder that has its own.
    """
    data_dir = checked_path(data_dir, "data_dir")
    if label_space not in (None, *LABEL_SPACES):
        raise InputError(f"label_space must be one of {', '.join(LABEL_SPACES)}, got {label_space!r}.")
    sizes = list_files(data_dir)
    if MANIFEST in sizes:
        if label_space is not None:
            raise InputError(f"{data_dir}/{MANIFEST} says which ids its labels hold; leave label_space out.")
        return _read_manifest(data_dir, sizes)
    return _index_foreign(data_dir, sizes, label_space)


def _read_manifest(data_dir: str, sizes: dict[str, int]) -> Manifest:
    path = join(data_dir, MANIFEST)
    with reading(path), open_binary(path) as file:
        content = file.read()
    try:
        data = _parsed(content)
        info = DatasetInfo.from_json(data["dataset"])
        splits = {name: _split(data_dir, name, rows, sizes) for name, rows in data["splits"].items()}
        drive = data.get("drive", _rule_of(data["options"]))
        check_rule(drive)
    except InputError as error:
        raise InputError(f"{path} is not usable: {error}. Prepare the data again with kseg prepare.") from None
    files = [f for rows in data["splits"].values() for f in rows["shards"]]
    checksums = {join(data_dir, f["file"]): f["sha256"] for f in files}
    digest = hashlib.sha256(content).hexdigest()
    return Manifest(
        data_dir=data_dir,
        info=info,
        splits=splits,
        label_space=data["label_space"],
        kseg_version=data["kseg_version"],
        digest=digest,
        options=data["options"],
        checksums=checksums,
        drive=drive,
    )


def _rule_of(options: dict) -> str:
    """Return the rule for drives of a manifest that is older than they are, by the dataset that was prepared."""
    name = options.get("dataset")
    return DATASETS[name].drive if isinstance(name, str) and name in DATASETS else ""


# A dict with text keys of one's own is {str: ...}, a list of any length [...], a tuple a list of just these.
_COLOUR = (int, int, int)
_IDS = [{"id": int, "name": str, "color": _COLOUR}]
_LABEL_SETS = [{"name": str, "classes": [str], "palette": [_COLOUR], "table": [int]}]
_SPLIT = {
    "shards": [{"file": str, "bytes": int, "sha256": str}],
    "records": [(int, int, int, str, int, int)],
    "pixel_counts": {str: int},
}
_FORM = {
    "dataset": {"name": str, "ids": _IDS, "void_ids": [int], "label_sets": _LABEL_SETS},
    "splits": {str: _SPLIT},
    "label_space": str,
    "kseg_version": str,
    "options": dict,
}


def _parsed(content: bytes) -> dict:
    """Return the JSON of a manifest whose every value is of the type that it must have; InputError for any other."""
    try:
        data = json.loads(content, object_hook=with_current_names)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, brackets without end
        raise InputError(f"it is not JSON ({error})") from None
    if not isinstance(data, dict) or "format_version" not in data:
        raise InputError("lacks 'format_version'")
    if data["format_version"] != FORMAT_VERSION:
        raise InputError(f"its format version is {data['format_version']!r}, this kseg reads {FORMAT_VERSION}")
    _check_form(data, _FORM, "it")
    return data


def _check_form(value, form, where: str) -> None:
    needed = list
    if isinstance(form, type):
        needed = form
    elif isinstance(form, dict):
        needed = dict
    if type(value) is not needed:
        raise InputError(f"{where} must be {needed.__name__}, got {str(value)[:60]}")
    if isinstance(form, dict) and str not in form:
        if missing := [repr(key) for key in form if key not in value]:
            raise InputError(f"{where} lacks {', '.join(missing)}")
        for key, part in form.items():
            _check_form(value[key], part, key)
    elif isinstance(form, dict):
        for key, one in value.items():
            _check_form(one, form[str], key)
    elif isinstance(form, list):
        for one in value:
            _check_form(one, form[0], f"a part of {where}")
    elif isinstance(form, tuple):
        if len(value) != len(form):
            raise InputError(f"{where} must have {len(form)} parts, got {len(value)}")
        for one, part in zip(value, form, strict=True):
            _check_form(one, part, f"a part of {where}")


def _split(data_dir: str, name: str, data: dict, sizes: dict[str, int]) -> Split:
    files = data["shards"]
    for file in files:
        if file["file"] not in sizes:
            raise InputError(f"shard {file['file']} is missing")
        if sizes[file["file"]] != file["bytes"]:
            raise InputError(f"shard {file['file']} has {sizes[file['file']]} bytes instead of {file['bytes']}")
    if not data["records"]:
        raise InputError(f"split {name} has no records")
    shard, offset, length, names, heights, widths = zip(*data["records"], strict=True)
    ids = {str(i): i for i in range(256)}
    if not all(i in ids and n >= 0 for i, n in data["pixel_counts"].items()):
        raise InputError(f"pixel counts of split {name!r} must be whole numbers by ids of 0..255")
    counts = {ids[i]: n for i, n in data["pixel_counts"].items()}
    limits = [(shard, len(files)), (heights, 2**31), (widths, 2**31)]
    limits += [(numbers, 2**62) for numbers in (offset, length, counts.values())]
    if any(not 0 <= n < limit for numbers, limit in limits for n in numbers):
        raise InputError(f"split {name} has an impossible shard, offset, size or pixel count")
    check_layout(zip(shard, offset, length, strict=True), [file["bytes"] for file in files])
    return Split(
        name=name,
        shards=tuple(join(data_dir, f["file"]) for f in files),
        shard=np.array(shard, np.int64),
        offset=np.array(offset, np.int64),
        names=tuple(names),
        heights=np.array(heights, np.int64),
        widths=np.array(widths, np.int64),
        pixel_counts=counts,
    )


def _index_foreign(data_dir: str, sizes: dict[str, int], label_space: str | None) -> Manifest:
    """Index shards without dataset.json by walking their framing."""
    groups: dict[str, dict[int, tuple[str, int]]] = {}
    for file in sizes:
        if match := SHARD_NAME.match(file):
            groups.setdefault(match["split"], {})[int(match["i"])] = (file, int(match["n"]))
    unfinished = f"{data_dir} is not a finished record folder, it has no {MANIFEST}: run kseg prepare"
    if not groups:
        raise InputError(f"{unfinished}.")
    if label_space is None:
        raise InputError(
            f"{unfinished}; for shards of DeepLab's converter, say which ids they hold with label_space "
            f"{' or '.join(LABEL_SPACES)}."
        )
    splits = {}
    for name, files in groups.items():
        missing = sorted(set(range(next(iter(files.values()))[1])) - set(files))
        if missing:
            raise InputError(f"{data_dir}: shards {missing} of split {name!r} are missing.")
        splits[name] = _scan_split(data_dir, name, [files[i][0] for i in sorted(files)], unfinished)
    info = {"train_ids": _train_ids_info, "label_ids": cityscapes.info}[label_space]()
    listing = json.dumps([label_space, sorted((f, n) for f, n in sizes.items() if SHARD_NAME.match(f))])
    digest = hashlib.sha256(listing.encode()).hexdigest()
    drive = DATASETS["cityscapes"].drive
    return Manifest(data_dir, info, splits, f"cityscapes/{label_space}", "", digest, drive=drive)


def _scan_split(data_dir: str, name: str, files: list[str], unfinished: str) -> Split:
    rows = []
    for i, file in enumerate(files):
        for position, (offset, _, small) in enumerate(scan(join(data_dir, file))):
            if "image/segmentation/class/label_space" in small:
                raise InputError(f"{unfinished} again: the shards there are from a preparation that did not finish.")
            height = small.get("image/height")
            width = small.get("image/width")
            if not isinstance(height, int) or not isinstance(width, int):
                raise InputError(f"Record {position} of shard {file} in {data_dir} lacks image/height or image/width.")
            rows.append((i, offset, _text(small.get("image/filename")) or f"{file}/{position}", height, width))
    if not rows:
        raise InputError(f"{data_dir}: split {name!r} has no records.")
    shard, offset, names, heights, widths = zip(*rows, strict=True)
    paths = tuple(join(data_dir, f) for f in files)
    numbers = [np.array(v, np.int64) for v in (shard, offset, heights, widths)]
    return Split(name, paths, numbers[0], numbers[1], names, numbers[2], numbers[3])


def _train_ids_info() -> DatasetInfo:
    """Cityscapes as converters that store training ids have it: ids 0..18 as they are, 255 void."""
    known = cityscapes.info().label_set()
    names = dict(enumerate(known.classes))
    colours = dict(enumerate(known.palette))
    same = label_set_of("train_ids", range(known.num_classes), known.classes, known.palette)
    return DatasetInfo("cityscapes", names | {255: "void"}, colours | {255: (0, 0, 0)}, (255,), {"train_ids": same})
