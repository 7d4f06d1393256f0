"""A dataset on disk as its reader listed it: frames per split, problems of the listing, the files."""

import functools
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from kseg.data import codec
from kseg.data.files import reading
from kseg.data.info import DatasetInfo
from kseg.errors import InputError

_NO_IMAGES = (".txt", ".md", ".db", ".ini", ".json", ".xml", ".csv")  # notes that lie beside images
Reference = str | tuple[str, str]  # a path, or (zip path, member): plain values, so that they travel to other processes


@dataclass(frozen=True)
class Frame:
    """One scene: its name in the records, and where image, label and (or None) instance map are."""

    name: str
    image: Reference
    label: Reference
    instance: Reference | None = None


@dataclass(frozen=True)
class Source:
    """A dataset as listed, files unread. `for name, image, label in source.split("train")` decodes them.

    Args:
        info: the dataset's ids and label sets.
        root: the folder that was given, which messages leave out of file names.
        splits: split -> frames in file-name order.
        problems: what the listing alone shows (image without label, ...), one line each.
        colours: packed colour (r << 16 | g << 8 | b) -> raw id, where labels are colour-coded; else None.
    """

    info: DatasetInfo
    root: str
    splits: dict[str, tuple[Frame, ...]]
    problems: tuple[str, ...] = ()
    colours: dict[int, int] | None = field(default=None, hash=False)

    def split(self, name: str) -> "SourceSplit":
        """Return the frames of a split as a sequence of (name, image, label); ValueError lists the splits."""
        if name not in self.splits:
            raise InputError(f"{self.root} has no split {name!r}. Choose one of: {', '.join(self.splits)}.")
        return SourceSplit(self, name)

    def shown(self, reference: Reference) -> str:
        """Return a reference as messages name it."""
        if isinstance(reference, tuple):
            return f"{os.path.basename(reference[0])}:{reference[1]}"
        return os.path.relpath(reference, self.root)

    def label(self, reference: Reference) -> tuple[np.ndarray, bytes]:
        """Return (uint8 raw ids (H, W), 8-bit grey PNG bytes) of a label file, colours turned into ids.

        Raises:
            ValueError: not a PNG, TIFF or BMP, damaged, no ids of 0..255, or colours that the dataset does not have.
        """
        data, what = read_bytes(reference), self.shown(reference)
        if self.colours is None:
            ids, plain = codec.decode_label(data, what)
            return ids, data if plain else codec.encode(ids)
        ids = _ids_of_colours(codec.decode_colours(data, what), self.colours, what)
        return ids, codec.encode(ids)


@dataclass(frozen=True)
class SourceSplit:
    """A split, decoded: len(), [i] and iteration give (name, uint8 RGB (H, W, 3), uint8 raw ids (H, W)).

    Apply a label set with `label_set.table[label]`. Needs no TensorFlow.
    """

    source: Source
    name: str

    def __len__(self) -> int:
        return len(self.source.splits[self.name])

    def __getitem__(self, index: int) -> tuple[str, np.ndarray, np.ndarray]:
        frame = self.source.splits[self.name][index]
        image = codec.decode_image(read_bytes(frame.image), self.source.shown(frame.image))[0]
        label = self.source.label(frame.label)[0]
        if image.shape[:2] != label.shape:
            raise InputError(f"{frame.name}: the image is {size_text(image)}, its label {size_text(label)}.")
        return frame.name, image, label

    def __iter__(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        return (self[i] for i in range(len(self)))


def size_text(array_or_size) -> str:
    """Return "WIDTHxHEIGHT" of an array or a (height, width)."""
    height, width = getattr(array_or_size, "shape", array_or_size)[:2]
    return f"{width}x{height}"


def first_names(names, most) -> str:
    """Return names as text, the first `most` of them where there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


@functools.lru_cache(maxsize=4)
def _archive(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is no usable zip file ({error}). Download it again.") from None


def archive_names(path: str) -> list[str]:
    """Return the member files of a zip; ValueError where it is damaged (a torn download)."""
    return [n for n in _archive(path).namelist() if not n.endswith("/")]


def read_bytes(reference: Reference) -> bytes:
    """Return the content of a file or zip member; ValueError where the member's checksum fails."""
    if isinstance(reference, tuple):
        try:
            return _archive(reference[0]).read(reference[1])
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            where = f"{os.path.basename(reference[0])}:{reference[1]}"
            raise InputError(f"{where}: damaged in the zip ({error})") from None
    with reading(reference), open(reference, "rb") as file:
        return file.read()


def stamp(reference: Reference) -> list:
    """Return what changes when the file does: size and modification time, or a zip member's size and CRC."""
    if isinstance(reference, tuple):
        member = _archive(reference[0]).getinfo(reference[1])
        return [member.file_size, member.CRC]
    status = os.stat(reference)
    return [status.st_size, status.st_mtime_ns]


def list_stems(folder: str, extensions: tuple[str, ...], show) -> tuple[dict[str, str], list[str]]:
    """Return (stem -> path of the files with these extensions; problems: files that would be left out)."""
    found, problems = {}, []
    if not os.path.isdir(folder):
        return found, problems
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        stem, extension = os.path.splitext(entry.name)
        if entry.name.startswith(".") or extension.lower() in _NO_IMAGES:
            continue
        if not entry.is_file() or extension.lower() not in extensions:
            problems.append(f"not {' or '.join(extensions)}: {show(entry.path)}")
        elif stem in found:
            problems.append(f"two files of one name: {show(found[stem])}, {show(entry.path)}")
        else:
            found[stem] = entry.path
    return dict(sorted(found.items())), problems


def pair(split: str, images: Mapping, labels: Mapping, show, instances: Mapping | None = None):
    """Pair images and labels (name -> reference) and return (frames, problems) in file-name order."""
    frames, problems = [], []
    for name in sorted(set(images) | set(labels)):
        if name not in labels:
            problems.append(f"{split}: image without label: {show(images[name])}")
        elif name not in images:
            problems.append(f"{split}: label without image: {show(labels[name])}")
        else:
            frames.append(Frame(name, images[name], labels[name], (instances or {}).get(name)))
    return tuple(frames), problems


def in_two_splits(names: Mapping[str, Mapping]) -> list[str]:
    """Return a problem for every name that more than one split has (split -> names)."""
    where: dict[str, list[str]] = {}
    for split, members in names.items():
        for name in members:
            where.setdefault(name, []).append(split)
    return [f"image in {len(s)} splits ({', '.join(s)}): {n}" for n, s in sorted(where.items()) if len(s) > 1]


def _ids_of_colours(rgb: np.ndarray, colours: Mapping[int, int], what: str) -> np.ndarray:
    packed = rgb[..., 0].astype(np.int32) << 16 | rgb[..., 1].astype(np.int32) << 8 | rgb[..., 2]
    values, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    wrong = [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if int(v) not in colours]
    if wrong:
        shown = first_names([f"({v >> 16}, {v >> 8 & 255}, {v & 255}) in {n} pixels" for v, n in wrong], most=5)
        raise InputError(f"{what}: colours that classes.json does not have: {shown}")
    return np.array([colours[int(v)] for v in values], np.uint8)[inverse].reshape(packed.shape)
