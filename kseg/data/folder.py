"""One's own data without code: images/ and labels/ per split and a classes.json."""

import functools
import json
import os

from kseg.data.files import reading
from kseg.data.info import DatasetInfo, label_set_of
from kseg.data.source import Source, in_two_splits, list_stems, pair
from kseg.errors import InputError, MissingFileError

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg")
_SPLITS = ("train", "val", "test")


def read_split_folders(root, info: DatasetInfo, required: tuple[str, ...], colours=None) -> Source:
    """List SPLIT/images + SPLIT/labels, or images/SPLIT + labels/SPLIT, paired by stem.

    Args:
        root: the folder. info: the dataset's ids. required: splits that must be there; the others of
            train, val and test are taken where they are. colours: see Source.

    Raises:
        FileNotFoundError: the folder or a required split is not there.
    """
    root = os.path.abspath(os.fspath(root))
    if not os.path.isdir(root):
        raise MissingFileError(f"There is no source folder {root}.")
    splits, problems, names = {}, [], {}
    show = functools.partial(os.path.relpath, start=root)
    for split in _SPLITS:
        folders = [
            (os.path.join(root, *a), os.path.join(root, *b))
            for a, b in (((split, "images"), (split, "labels")), (("images", split), ("labels", split)))
        ]
        there = [f for f in folders if os.path.isdir(f[0]) or os.path.isdir(f[1])]
        if len(there) > 1:
            raise InputError(f"{root} has {split}/images and images/{split}, two layouts. Keep one.")
        if not there:
            if split in required:
                raise MissingFileError(f"{root} has no {split}/images (or images/{split}).")
            continue
        images, strays = list_stems(there[0][0], IMAGE_EXTENSIONS, show)
        labels, more = list_stems(there[0][1], (".png",), show)
        splits[split], unpaired = pair(split, images, labels, show)
        problems += strays + more + unpaired
        names[split] = images
    return Source(info, root, splits, tuple(problems + in_two_splits(names)), colours)


def read(source, classes: str | None = None) -> Source:
    """List a dataset of one's own.

    The folder holds SPLIT/images and SPLIT/labels (or images/SPLIT and labels/SPLIT) for train and, if there,
    val and test; images are PNG or JPEG, labels PNG of the same stem, 8-bit ids or colours. classes.json:
    {"classes": [{"id": 0, "name": "road", "color": [128, 64, 128]}, ...], "void": [255], "labels": "ids"}.
    The training id is the position among the classes that are not void; "color" may be left out for labels
    of ids. With "labels": "color" the labels are colour-coded and matched exactly: "id" may be left out
    then, and a class with "void": true is ignored in training.

    Args:
        source: the folder. classes: path of the classes file; None is classes.json in the folder.

    Raises:
        FileNotFoundError: the folder, train or the classes file is not there.
        ValueError: the classes file is not as above; two files of one stem.
    """
    root = os.path.abspath(os.fspath(source))
    if not os.path.isdir(root):
        raise MissingFileError(f"There is no source folder {root}.")
    info, colours = read_classes(classes or os.path.join(root, "classes.json"), os.path.basename(root))
    return read_split_folders(root, info, ("train",), colours)


def read_classes(path: str, name: str = "folder") -> tuple[DatasetInfo, dict[int, int] | None]:
    """Return (DatasetInfo, packed colour -> id or None) of a classes file; ValueError if wrong."""
    if not os.path.isfile(path):
        wanted = '{"classes": [{"id": 0, "name": "road"}, ...]}'
        raise MissingFileError(f"There is no {path}. Write {wanted} there.")
    try:
        with reading(path), open(path, encoding="utf-8") as file:
            data = json.load(file)
        return _parse(data, str(data.get("name", name)))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: {error}") from None


def _parse(data: dict, name: str):
    unknown = set(data) - {"name", "classes", "void", "labels"}
    kind, rows = data.get("labels", "ids"), data.get("classes")
    if unknown:
        raise InputError(f"unknown keys {', '.join(sorted(unknown))}; known: name, classes, void, labels.")
    if kind not in ("ids", "color"):
        raise InputError(f'"labels" must be "ids" or "color", got {kind!r}.')
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) and r.get("name") for r in rows):
        raise InputError('"classes" must be a list of {"id": 0, "name": "road", "color": [128, 64, 128]}.')
    if kind == "color" and not all("color" in r for r in rows):
        raise InputError('with "labels": "color" every class needs a "color".')
    if kind == "ids" and not all("id" in r for r in rows):
        raise InputError('every class needs an "id", the number in the label files.')
    ids = [r.get("id", i) for i, r in enumerate(rows)]
    void = data.get("void", [])
    whole = isinstance(void, list) and all(type(i) is int and 0 <= i <= 255 for i in (*ids, *void))
    if not whole or len(set(ids)) < len(ids):
        raise InputError(f'ids must be different whole numbers of 0..255, got {ids}, "void" {void}.')
    palette = [tuple(r.get("color", _default_colour(i))) for i, r in enumerate(rows)]
    train = [k for k, r in enumerate(rows) if not r.get("void") and ids[k] not in void]
    ignored = {ids[k] for k in range(len(rows)) if k not in train} | set(void)
    if 255 not in ids:
        ignored.add(255)
    labels = label_set_of(
        "train_ids",
        [ids[k] for k in train],
        [rows[k]["name"] for k in train],
        [palette[k] for k in train],
        ignored,
    )
    names = {i: "void" for i in sorted(ignored)} | {i: str(r["name"]) for i, r in zip(ids, rows, strict=True)}
    id_palette = {i: (0, 0, 0) for i in sorted(ignored)} | dict(zip(ids, palette, strict=True))
    info = DatasetInfo(name, names, id_palette, tuple(sorted(ignored)), {"train_ids": labels})
    if kind == "ids":
        return info, None
    packed = [r << 16 | g << 8 | b for r, g, b in palette]
    if len(set(packed)) < len(packed):
        raise InputError("two classes have the same colour, so colour-coded labels are ambiguous.")
    return info, dict(zip(packed, ids, strict=True))


def _default_colour(index: int) -> tuple[int, int, int]:
    """A colour for a class without one: the bits of index + 1, dealt to R, G, B."""
    colour = [0, 0, 0]
    for bit in range(8):
        colour[bit % 3] |= (index + 1 >> bit & 1) << 7 - bit // 3
    return tuple(colour)
