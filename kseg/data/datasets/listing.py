"""A dataset on disk as its reader listed it: frames per split, problems of the listing, the files."""

import functools
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kseg.data.labels import Colour, DatasetInfo
from kseg.io import images as codec
from kseg.io.errors import InputError, MissingFileError
from kseg.io.files import reading
from kseg.io.text import count_text, first_names
from kseg.io.users_text import composed
from kseg.io.zips import DAMAGED, read_member

MAX_BYTES = 8 * codec.MAX_PIXELS  # of an image file: room for the largest that is decoded, as 16-bit RGBA
_NO_IMAGES = (".txt", ".md", ".db", ".ini", ".json", ".xml", ".csv", ".yaml", ".yml")  # notes that lie beside images
_NO_FOLDERS = ("__MACOSX", "@eaDir")  # what a Mac's zip and a network disk add; names with a dot in front are left too
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
    """A dataset as listed, files unread.

    Args:
        info: the dataset's ids and label sets.
        root: the folder that was given, which messages leave out of file names.
        splits: split -> frames in file-name order.
        problems: what the listing alone shows (image without label, ...), one line for each cause.
        colours: packed colour (r << 16 | g << 8 | b) -> raw id, where labels are colour-coded; else None.
        notes: which folders were read as what, and what was left out, one line each.
        unlabelled: split -> its images, if the split has no label at all; such a split is not in `splits`.
        drawn: raw id -> the colour that classes.json gives it, where labels hold ids; no palette may contradict it.
    """

    info: DatasetInfo
    root: str
    splits: dict[str, tuple[Frame, ...]]
    problems: tuple[str, ...] = ()
    colours: dict[int, int] | None = field(default=None, hash=False)
    notes: tuple[str, ...] = ()
    unlabelled: dict[str, tuple[Reference, ...]] = field(default_factory=dict, hash=False)
    drawn: dict[int, Colour] = field(default_factory=dict, hash=False)

    def shown(self, reference: Reference) -> str:
        """Return a reference as messages name it."""
        if isinstance(reference, tuple):
            return f"{os.path.basename(reference[0])}:{reference[1]}"
        return os.path.relpath(reference, self.root)

    def label(self, reference: Reference) -> tuple[np.ndarray, bytes]:
        """Return (uint8 raw ids (H, W), 8-bit grey PNG bytes) of a label file, colours turned into ids.

        Raises:
            ValueError: not a PNG, TIFF or BMP, damaged, no ids of 0..255, colours that the dataset does not have, or
                a palette that draws an id in the colour of another class.
        """
        data = read_bytes(reference)
        what = self.shown(reference)
        if self.colours is None:
            ids, plain = codec.decode_label(data, what)
            if self.drawn:
                self._check_palette(ids, codec.palette(data, what), what)
            return ids, data if plain else codec.encode(ids)
        ids = _ids_of_colours(codec.decode_colours(data, what), self.colours, what)
        return ids, codec.encode(ids)

    def _check_palette(self, ids: np.ndarray, palette: list[Colour], what: str) -> None:
        """Refuse a label whose palette draws an index in use in the colour of another class (GIMP renumbers them).

        Black is let pass where the palette draws the black class right: programs fill up a palette with it.
        """
        padding = {(0, 0, 0)} & {colour for i, colour in enumerate(palette) if self.drawn.get(i) == colour}
        for index in np.unique(ids).tolist() if palette else ():
            colour = palette[index] if index < len(palette) else None
            owners = [i for i, own in self.drawn.items() if own == colour]
            if owners and index not in owners and colour not in padding:
                raise InputError(
                    f"{what}: index {index} is drawn in {colour}, which classes.json gives to "
                    f'{self.info.id_names[owners[0]]} (id {owners[0]}); use "labels": "color", or export label ids'
                )


def no_source(root: str) -> InputError:
    """Return the error that says that a dataset's folder is none."""
    if os.path.lexists(root):
        return InputError(f"The source must be a folder, but {root} is none.")
    return MissingFileError(f"There is no source folder {root}.")


class Problem(NamedTuple):
    """One thing wrong: what problems of its kind share, and a line that names the file."""

    cause: str
    line: str


def one_line_each(problems: Iterable[Problem]) -> list[str]:
    """Return a line for each cause, in order of first occurrence: its first problem, and how many more."""
    of_cause: dict[str, list[str]] = {}
    for cause, line in problems:
        of_cause.setdefault(cause, []).append(line)
    return [lines[0] + (f" (and {len(lines) - 1} more like it)" if lines[1:] else "") for lines in of_cause.values()]


def _archive(path: str) -> zipfile.ZipFile:
    """Return a zip, opened; if the file was replaced since, it is opened again."""
    with reading(path):
        status = os.stat(path)
    return _opened(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _opened(path: str, *_identity: int) -> zipfile.ZipFile:
    try:
        with reading(path):
            return zipfile.ZipFile(path)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{path} is not a usable zip file ({error}). Download it again.") from None


def archive_names(path: str) -> list[str]:
    """Return the member files of a zip; ValueError if it is damaged (a torn download)."""
    return [n for n in _archive(path).namelist() if not n.endswith("/")]


def read_bytes(reference: Reference, most: int = MAX_BYTES) -> bytes:
    """Return the content of a file or zip member.

    Args:
        reference: of the file. most: bytes that it may have; its size is looked at before it is read.

    Raises:
        ValueError: it is larger, or is damaged in the zip. FileNotFoundError, OSError: it cannot be read.
    """
    if isinstance(reference, tuple):
        try:
            with reading(reference[0]):
                return read_member(_archive(reference[0]), reference[1], most)
        except InputError as error:
            where = f"{os.path.basename(reference[0])}:{reference[1]}"
            raise InputError(f"{where}: {error}") from None
    with reading(reference), open(reference, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise InputError(f"{reference} has {size:,} bytes, but at most {most:,} are read")
        return file.read()


def stamp(reference: Reference) -> list:
    """Return what changes when the file does: size and modification time, or a zip member's size and CRC."""
    if isinstance(reference, tuple):
        member = _archive(reference[0]).getinfo(reference[1])
        return [member.file_size, member.CRC]
    with reading(reference):
        status = os.stat(reference)
    return [status.st_size, status.st_mtime_ns]


def list_stems(folder: str, extensions: tuple[str, ...], show, advice: Mapping[str, str] | None = None):
    """List the files of a folder and of the folders in it.

    Args:
        folder: where they are. extensions: of the files that are wanted, in small letters.
        show: path -> the path as messages name it. advice: extension of other files -> what to do about them.

    Returns:
        (name -> path, names of files that cannot be used, problems: a Problem for each such file). The name is the path
        inside the folder, "/" between its parts, without the extension: "seq1/0001". Letters are in Unicode's composed
        form (NFC), whichever form the disk has: an older Mac writes "ü" as two characters.
    """
    found = {}
    unusable = set()
    problems = []
    for path in walk_files(folder) if os.path.isdir(folder) else ():
        name, extension = os.path.splitext(os.path.relpath(path, folder).replace(os.sep, "/"))
        name = composed(name)
        if extension.lower() in _NO_IMAGES:
            continue
        if not os.path.isfile(path):
            unusable.add(name)
            problems.append(Problem("no file", f"cannot be read: {show(path)}"))
        elif extension.lower() not in extensions:
            unusable.add(name)
            why = (advice or {}).get(extension.lower(), f"not {' or '.join(extensions)}")
            problems.append(Problem(why, f"{why}: {show(path)}"))
        elif name in found:
            alike = os.path.splitext(found[name])[0] == os.path.splitext(path)[0]
            why = "two files with one name" + ("" if alike else ", its letters in two Unicode forms")
            problems.append(Problem(why, f"{why}: {show(found[name])}, {show(path)}"))
        else:
            found[name] = path
    return dict(sorted(found.items())), unusable, problems


def is_left_out(path: str) -> bool:
    """Return whether a file's path inside a folder is one that `list_stems` passes over: hidden, or a note."""
    parts = path.split(os.sep)
    hidden = any(part.startswith(".") or part in _NO_FOLDERS for part in parts)
    return hidden or os.path.splitext(path)[1].lower() in _NO_IMAGES


def walk_files(folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the paths of all files below a folder, following links, except those that lead back."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with reading(folder):
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _NO_FOLDERS:
            continue
        if entry.is_dir():
            yield from walk_files(entry.path, (*above, real))
        else:
            yield entry.path


def pair(split: str, images: Mapping, labels: Mapping, show, instances: Mapping | None = None):
    """Pair images and labels (name -> reference) and return (frames, problems) in file-name order."""
    frames = []
    problems = []
    for name in sorted(set(images) | set(labels)):
        if name not in labels:
            problems.append(Problem(f"{split} image", f"{split}: image without label: {show(images[name])}"))
        elif name not in images:
            problems.append(Problem(f"{split} label", f"{split}: label without image: {show(labels[name])}"))
        else:
            frames.append(Frame(name, images[name], labels[name], (instances or {}).get(name)))
    return tuple(frames), problems


def same_in_two_splits(splits: Mapping[str, tuple[Frame, ...]]) -> list[Problem]:
    """Return a problem for every image that two splits have under one name with the same content.

    The same name alone is fine: each split may count from 0000. `--check` finds equal images with different names.
    """
    where: dict[str, list[tuple[str, Reference]]] = {}
    for split, frames in splits.items():
        for frame in frames:
            where.setdefault(frame.name, []).append((split, frame.image))
    problems = []
    for name, places in sorted(where.items()):
        equal: dict[bytes, list[str]] = {}
        sizes = [stamp(image)[0] for _, image in places]
        for (split, image), size in zip(places, sizes, strict=True):
            if sizes.count(size) > 1:
                equal.setdefault(read_bytes(image), []).append(split)
        for found in equal.values():
            if len(found) > 1:
                line = f"image in {len(found)} splits ({', '.join(found)}): {name}; leave it out of all but one"
                problems.append(Problem(f"in splits {found}", line))
    return problems


def names_without_utf8(frames: Iterable[Frame]) -> list[Problem]:
    """Return a problem for every name that Python cannot read as UTF-8: records hold names as UTF-8.

    Old archives unpack such names. Where Python's own encoding of file names is another, a name may be right.
    """
    problems = []
    for frame in frames:
        try:
            frame.name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(frame.name).decode(errors="backslashreplace")
            fault = "the file name is not UTF-8; rename the file"
            if os.fsencode(frame.name) == shown.encode():
                encoding = sys.getfilesystemencoding()
                fault = f"Python reads file names as {encoding} here, not as UTF-8; set PYTHONUTF8=1 and start again"
            problems.append(Problem(f"no UTF-8: {fault}", f"{shown}: {fault}"))
    return problems


def _ids_of_colours(rgb: np.ndarray, colours: Mapping[int, int], what: str) -> np.ndarray:
    packed = rgb[..., 0].astype(np.int32) << 16 | rgb[..., 1].astype(np.int32) << 8 | rgb[..., 2]
    values, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    wrong = [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if int(v) not in colours]
    if wrong:
        shown = first_names(
            [f"({v >> 16}, {v >> 8 & 255}, {v & 255}) in {count_text(n, 'pixel')}" for v, n in wrong], most=5
        )
        advice = ""
        if {v for v, _ in wrong} <= {grey * 0x010101 for grey in colours.values()}:
            advice = '; these look like ids, which "labels": "ids" in classes.json reads'
        raise InputError(f"{what}: colours that classes.json does not have: {shown}{advice}")
    return np.array([colours[int(v)] for v in values], np.uint8)[inverse].reshape(packed.shape)
