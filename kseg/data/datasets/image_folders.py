"""Your own data without code: images/ and labels/ per split and a classes.json."""

import collections
import functools
import json
import os
import shlex

from kseg.data.datasets.listing import Problem, Source, list_stems, no_source, one_line_each, pair, walk_files
from kseg.data.labels import Colour, DatasetInfo, label_set_of
from kseg.io.errors import InputError, MissingFileError
from kseg.io.files import reading
from kseg.io.images import HEIC_EXTENSIONS, IMAGE_EXTENSIONS, LABEL_EXTENSIONS, NO_HEIC
from kseg.io.users_text import composed, users_json

# What folders are called, in small letters; any case is taken.
_SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
_KINDS = {
    "images": ("images", "image", "imgs", "img", "jpegimages"),
    "labels": ("labels", "label", "masks", "mask", "annotations", "annotation", "segmentationclass", "gt"),
}
_SPLIT_OF = {name: split for split, names in _SPLITS.items() for name in names}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}
_WANTED = '{"classes": [{"id": 0, "name": "background"}, {"id": 1, "name": "road"}]}'  # as classes.json
_ANNOTATED = {f"{split}annot": split for split in _SPLITS}  # the SegNet tutorial's labels; the images lie in SPLIT/
_EXTENSIONS = {"images": IMAGE_EXTENSIONS, "labels": LABEL_EXTENSIONS}
_ADVICE = {
    "images": dict.fromkeys(HEIC_EXTENSIONS, NO_HEIC),
    "labels": dict.fromkeys((".jpg", ".jpeg"), "labels are JPEG, which changes ids; export them as PNG")
    | {".webp": "labels are WebP, which changes ids; export them as PNG"},
}
_SUFFIXES = ("_mask", "_L", "_label", "_labelIds", "_gt", "_segmentation")  # of labels; none ends in another


def read_split_folders(root, info: DatasetInfo, required: tuple[str, ...], colours=None, drawn=None) -> Source:
    """List SPLIT/images + SPLIT/labels, or images/SPLIT + labels/SPLIT, under any name of `_SPLITS` and `_KINDS`.

    Where there is a folder of `_ANNOTATED`, image files right in SPLIT/ are the split's too: SPLIT/ + SPLITannot/.

    Images and labels are paired by name: the path inside their folder without the extension. A label may have one of
    `_SUFFIXES` more than its image, where no other label could be that image's.

    Args:
        root: the folder. info: the dataset's ids. required: splits that must be there; the others of
            train, val and test are taken where they are. colours, drawn: see Source.

    Returns:
        A Source. A split other than train whose images have no label at all is in `unlabelled`, not in `splits`.

    Raises:
        FileNotFoundError: the folder or a required split is not there.
        ValueError: two folders could be the images, or the labels, of one split.
    """
    root = os.path.abspath(os.fspath(root))
    if not os.path.isdir(root):
        raise no_source(root)
    show = functools.partial(os.path.relpath, start=root)
    candidates, unread = _find_folders(root)
    splits = {}
    problems = []
    notes = []
    unlabelled = {}
    for split in _SPLITS:
        folders = {kind: _choose(split, kind, candidates[split, kind], show, notes) for kind in _KINDS}
        if not any(folders.values()):
            if split in required:
                raise MissingFileError(_no_split(root, split))
            notes += [f"{name}/ is left out: it holds no images/ and labels/." for name in unread[split]]
            continue
        found = {kind: {} for kind in _KINDS}
        unusable = {kind: set() for kind in _KINDS}
        for kind, folder in folders.items():
            if folder:
                found[kind], unusable[kind], faults = list_stems(folder, _EXTENSIONS[kind], show, _ADVICE[kind])
                problems += faults
        images = found["images"]
        labels = found["labels"]
        notes += _names_note(split, folders, show)
        if images and not labels and split != "train" and not _holds_files(folders["labels"]):
            unlabelled[split] = tuple(images.values())
            notes.append(_unlabelled_note(split, len(images), folders["images"]))
            continue
        if split not in required and not any(map(_holds_files, folders.values())):
            notes.append(f"{split}: left out, its folders are empty.")
            continue
        labels, doubtful, suffixes = _by_image(split, images, labels, show)
        for suffix, count in suffixes.items():
            they = "1 label is" if count == 1 else f"{count} labels are"
            notes.append(f"{split}: {they} paired by their image's name and {suffix}.")
        said = _stems(unusable["labels"]) - labels.keys()  # why these lack the other half is said already
        said |= {n for n in labels if n not in images and not unusable["images"].isdisjoint(_stems([n]))}
        images = {n: i for n, i in images.items() if n not in said and n not in doubtful}
        labels = {n: label for n, label in labels.items() if n not in said}
        splits[split], unpaired = pair(split, images, labels, show)
        problems += [*doubtful.values(), *unpaired]
    return Source(info, root, splits, tuple(one_line_each(problems)), colours, tuple(notes), unlabelled, drawn or {})


def holds_dataset(root) -> bool:
    """Whether a folder has the images and the labels of a split, each in a folder of their own."""
    try:
        candidates, _ = _find_folders(os.fspath(root))
    except InputError:  # what cannot be read: a circle of links
        return False
    return any(all((split, kind) in candidates for kind in _KINDS) for split in _SPLITS)


def _find_folders(root: str):
    """Return ((split, kind) -> folders that could be it; split -> folders of its name in which none is)."""
    candidates = collections.defaultdict(list)
    unread = collections.defaultdict(list)
    folders = _subfolders(root)
    tutorial = any(folder.name.lower() in _ANNOTATED for folder in folders)
    for first in folders:
        name = first.name.lower()
        if name in _ANNOTATED:
            candidates[_ANNOTATED[name], "labels"].append(first.path)
        if name not in _SPLIT_OF and name not in _KIND_OF:
            continue
        before = sum(map(len, candidates.values()))
        for second in _subfolders(first.path):
            for outer, inner in ((first, second), (second, first)):
                split = _SPLIT_OF.get(outer.name.lower())
                kind = _KIND_OF.get(inner.name.lower())
                if split and kind:
                    candidates[split, kind].append(second.path)
        if tutorial and name in _SPLIT_OF and _has_images(first.path):
            candidates[_SPLIT_OF[name], "images"].append(first.path)
        if name in _SPLIT_OF and sum(map(len, candidates.values())) == before:
            unread[_SPLIT_OF[name]].append(first.name)
    return candidates, unread


def _has_images(folder: str) -> bool:
    """Return whether image files lie right in a folder."""
    with reading(folder):
        return any(e.is_file() and e.name.lower().endswith(IMAGE_EXTENSIONS) for e in os.scandir(folder))


def _subfolders(folder: str) -> list[os.DirEntry]:
    with reading(folder):
        return sorted((e for e in os.scandir(folder) if e.is_dir()), key=lambda e: e.name)


def _holds_files(folder: str | None, extensions: tuple[str, ...] = ("",)) -> bool:
    """Return whether a folder or one in it has a file whose name ends so, any file by default."""
    return folder is not None and any(path.lower().endswith(extensions) for path in walk_files(folder))


def _choose(split: str, kind: str, folders: list[str], show, notes: list[str]) -> str | None:
    """Return the one folder that holds a split's images or labels, None if there is none; note what is ignored."""
    if len(folders) > 1:  # Annotations/ of .xml beside SegmentationClass/ of .png
        wanted = (_EXTENSIONS[kind], tuple(_ADVICE[kind]))
        folders = next((some for e in wanted if (some := [f for f in folders if _holds_files(f, e)])), folders[:1])
    if len(folders) < 2:
        return folders[0] if folders else None
    chosen = [f for f in folders if os.path.basename(f) == kind]
    shown = " and ".join(map(show, folders))
    if len(chosen) != 1 or len(set(map(os.path.dirname, folders))) > 1:
        raise InputError(f"{shown} could both be the {kind} of split {split}. Keep one, or rename the other.")
    notes.append(f"{split}: the {kind} are read from {show(chosen[0])}; of {shown}, the others are not read.")
    return chosen[0]


def _names_note(split: str, folders: dict[str, str | None], show) -> list[str]:
    """Return a line on which folders hold a split's images and labels, none if the names are kseg's own."""
    there = {kind: show(folder) for kind, folder in folders.items() if folder}
    if all(f in (os.path.join(split, kind), os.path.join(kind, split)) for kind, f in there.items()):
        return []
    return [f"{split}: {' and '.join(f'the {kind} are read from {f}' for kind, f in there.items())}."]


def _unlabelled_note(split: str, count: int, folder: str) -> str:
    they = "1 image has no label" if count == 1 else f"{count} images have no labels"
    return (
        f"{split}: {they}, so the split is not scored and not in the records. "
        f"kseg predict --images={shlex.quote(folder)} predicts labels."
    )


def _stems(names) -> set[str]:
    """Return names of labels and what they are without a suffix: the images that they may belong to."""
    return {stem for name in names for stem in (name, *(name.removesuffix(s) for s in _SUFFIXES))}


def _by_image(split: str, images: dict[str, str], labels: dict[str, str], show):
    """Give labels their image's name where theirs has a suffix more and nothing else could be that image's label.

    Returns:
        (name of the image, or the label's own where it has none -> label; image -> Problem, where several labels could
        be its; suffix -> how many labels have it).
    """
    could = collections.defaultdict(list)
    suffixes = collections.Counter()
    for name in labels.keys() - images.keys():
        suffix = next((s for s in _SUFFIXES if name.endswith(s)), None)
        image = name.removesuffix(suffix or "")
        if image in images and image not in labels:
            could[image].append((name, suffix))
    renamed = {}
    doubtful = {}
    labels = dict(labels)
    for image, found in sorted(could.items()):
        paths = [labels.pop(name) for name, _ in sorted(found)]
        if len(found) == 1:
            renamed[image] = paths[0]
            suffixes[found[0][1]] += 1
        else:
            shown = f"{show(images[image])}: {' and '.join(map(show, paths))}"
            doubtful[image] = Problem(f"{split} doubtful", f"{split}: several labels could be the image's: {shown}")
    return labels | renamed, doubtful, suffixes


def _no_split(root: str, split: str) -> str:
    there = ", ".join(e.name + "/" for e in _subfolders(root)[:8]) or "no folder"
    known = "; ".join(f"{name}: {', '.join(names)}" for name, names in (_SPLITS | _KINDS).items())
    what_to_do = ""
    if os.path.basename(root).lower() in _SPLIT_OF:
        what_to_do = f" Give the folder above it, {os.path.dirname(root)}."
    elif split == "val":
        what_to_do = " Training needs a validation split: move some of the images, and their labels, to val."
    return (
        f"{root} has no {split}/images: it holds {there}. The images may also be in images/{split}, or in "
        f"{split} with their labels in {split}annot."
        f"{what_to_do} These folder names work, in any case: {known}."
    )


def read(source, classes: str | None = None) -> Source:
    """List a dataset of your own.

    The folder holds SPLIT/images and SPLIT/labels (or images/SPLIT and labels/SPLIT) for train and, if there,
    val and test; sub-folders are walked. Images are files of IMAGE_EXTENSIONS, labels files of LABEL_EXTENSIONS
    (kseg/io/images.py), 8-bit ids or colours, of the same name. Other usual names of folders and of labels are taken
    too (`read_split_folders`). classes.json:
    {"classes": [{"id": 0, "name": "road", "color": [128, 64, 128]}, ...], "void": [255], "labels": "ids"}.
    The training id is the position among the classes that are not void; "color" may be left out for labels
    of ids. With "labels": "color" the labels are colour-coded and matched exactly: "id" may be left out
    then, and a class with "void": true is ignored in training.

    Args:
        source: the folder. classes: path of the classes file; None is classes.json in the folder.

    Raises:
        FileNotFoundError: the folder, train or the classes file is not there.
        ValueError: the classes file is not as above; two folders could be the same thing.
    """
    root = os.path.abspath(os.fspath(source))
    if not os.path.isdir(root):
        raise no_source(root)
    info, colours, drawn = read_classes(classes or os.path.join(root, "classes.json"), os.path.basename(root))
    return read_split_folders(root, info, ("train",), colours, drawn)


def read_classes(path: str, name: str = "folder") -> tuple[DatasetInfo, dict[int, int] | None, dict[int, Colour]]:
    """Return (DatasetInfo, packed colour -> id or None, id -> colour that is given) of a file; ValueError if wrong."""
    if not os.path.isfile(path):
        raise MissingFileError(f"There is no {path}. {_like(path) or f'Write {_WANTED} there'}.")
    with reading(path), open(path, "rb") as file:
        content = file.read()
    if not content.strip():
        raise InputError(f"{path} is empty. Write {_WANTED} there.")
    try:
        data = users_json(content)  # bytes: UTF-8 or UTF-16, with or without a byte-order mark
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}.") from None
    try:
        return _parse(data, name)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _like(path: str) -> str:
    """Return a sentence on a file that may be meant by a path of nothing; "" if there is none.

    Its name differs by capitals alone, or it is in the folder above, or in the only folder below that has one.
    """
    folder, name = os.path.split(path)
    there = sorted(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else []
    found = next((other for other in there if other.lower() == name.lower()), None)
    if found:
        return f"{found} is there: rename it to {name}"
    near = [os.path.dirname(folder), *(os.path.join(folder, other) for other in there)]
    having = [other for other in near if os.path.isfile(os.path.join(other, name))]
    return f"{having[0]} has one: give that folder" if len(having) == 1 else ""


def _parse(data, name: str):
    """Return what `read_classes` does; InputError for any JSON value that is not a list of classes."""
    if not isinstance(data, dict):
        raise InputError(f'it must be {{"classes": [...]}}, a JSON object, got {json.dumps(data)[:100]}.')
    unknown = set(data) - {"name", "classes", "void", "labels"}
    encoding = data.get("labels", "ids")
    rows = data.get("classes")
    name = data.get("name", name)
    if unknown:
        raise InputError(f"unknown keys {', '.join(sorted(unknown))}; known: name, classes, void, labels.")
    if not isinstance(name, str):
        raise InputError(f'"name" must be text, got {name!r}.')
    if encoding not in ("ids", "color"):
        raise InputError(f'"labels" must be "ids" or "color", got {encoding!r}.')
    if not isinstance(rows, list) or not rows:
        wanted = '{"id": 0, "name": "road", "color": [128, 64, 128]}'
        raise InputError(f'"classes" must be a list of {wanted}, got {json.dumps(rows)[:100]}.')
    for number, row in enumerate(rows):
        if isinstance(row, dict) and isinstance(row.get("name"), str):
            row["name"] = composed(row["name"])
        if fault := _fault_of(row):
            raise InputError(f"class {number} of the list (counted from 0): {fault}, got {json.dumps(row)[:100]}.")
    if encoding == "color" and not all("color" in r for r in rows):
        raise InputError('with "labels": "color" every class needs a "color".')
    if encoding == "ids" and not all("id" in r for r in rows):
        raise InputError('every class needs an "id", the number in the label files.')
    ids = [r.get("id", i) for i, r in enumerate(rows)]
    void = data.get("void", [])
    if not isinstance(void, list) or not all(map(_is_id, void)):
        raise InputError(f'"void" must be a list of whole numbers of 0..255, such as [255], got {void!r}.')
    if not all(map(_is_id, ids)) or len(set(ids)) < len(ids):
        raise InputError(f"ids must be different whole numbers of 0..255, got {ids}.")
    for colour in [r["color"] for r in rows if "color" in r]:
        if not _is_colour(colour):
            raise InputError(f"a colour is three whole numbers of 0..255 (red, green, blue), got {colour!r}.")
    palette = _palette(rows)
    drawn = {i: colour for i, colour, r in zip(ids, palette, rows, strict=True) if "color" in r}
    return *_make_info(name, rows, ids, palette, void, encoding), drawn


def _fault_of(row) -> str:
    """Return what is wrong with the keys, the name or "void" of a row of "classes"; "" if nothing is."""
    if not isinstance(row, dict):
        return 'it must be {"id": 0, "name": "road", "color": [128, 64, 128]}'
    if unknown := row.keys() - {"id", "name", "color", "void"}:
        return f"unknown keys {', '.join(sorted(unknown))}; known: id, name, color, void"
    name = row.get("name")
    if not isinstance(name, str) or not name or name != name.strip() or not name.isprintable():
        return '"name" must be a line of text that neither begins nor ends with a space'
    if not isinstance(row.get("void", False), bool):
        return '"void" must be true or false'
    return ""


def _is_id(value) -> bool:
    return type(value) is int and 0 <= value <= 255


def _is_colour(value) -> bool:
    triple = isinstance(value, list | tuple) and len(value) == 3
    return triple and all(type(v) is int and 0 <= v <= 255 for v in value)


def _make_info(name: str, rows: list[dict], ids: list[int], palette: list[tuple], void: list[int], encoding: str):
    """Return (DatasetInfo, packed colour -> id or None) of rows whose types are right."""
    train = [k for k, r in enumerate(rows) if not r.get("void") and ids[k] not in void]
    names = [rows[k]["name"] for k in train]
    if twice := [n for n, count in collections.Counter(names).items() if count > 1]:
        raise InputError(f"each class needs its own name, {twice[0]!r} is there {names.count(twice[0])} times.")
    same = {name.casefold(): name for name in reversed(names)}
    if alike := [(same[name.casefold()], name) for name in names if same[name.casefold()] != name]:
        first, second = alike[0]
        raise InputError(f"{first!r} and {second!r} differ in upper and lower case alone: name one of them otherwise.")
    of_colour = {}
    for k, name_of_class in zip(train, names, strict=True):
        if (first := of_colour.setdefault(palette[k], name_of_class)) != name_of_class:
            raise InputError(
                f"{first!r} and {name_of_class!r} have the same colour {list(palette[k])}, so no picture could tell "
                'them apart. Give one another colour, or leave its "color" out: kseg chooses one then.'
            )
    if len(train) < 2:
        raise InputError(
            f"there must be at least 2 classes that are not void, got {len(train)}. "
            'List the background as a class: {"id": 0, "name": "background"}.'
        )
    ignored = {ids[k] for k in range(len(rows)) if k not in train} | set(void)
    if 255 not in ids:
        ignored.add(255)
    labels = label_set_of("train_ids", [ids[k] for k in train], names, [palette[k] for k in train], ignored)
    id_names = dict.fromkeys(sorted(ignored), "void") | {i: r["name"] for i, r in zip(ids, rows, strict=True)}
    id_palette = dict.fromkeys(sorted(ignored), (0, 0, 0)) | dict(zip(ids, palette, strict=True))
    info = DatasetInfo(name, id_names, id_palette, tuple(sorted(ignored)), {"train_ids": labels})
    if encoding == "ids":
        return info, None
    packed = [r << 16 | g << 8 | b for r, g, b in palette]
    if len(set(packed)) < len(packed):
        raise InputError("two classes have the same colour, so colour-coded labels are ambiguous.")
    return info, dict(zip(packed, ids, strict=True))


def _palette(rows: list[dict]) -> list[tuple]:
    """Return a colour for each row: its own, or one that no row has."""
    taken = {tuple(r["color"]) for r in rows if "color" in r}
    palette = []
    for i, row in enumerate(rows):
        free = (colour for colour in map(_default_colour, (i, *range(256))) if colour not in taken)
        palette.append(tuple(row["color"]) if "color" in row else next(free))
        taken.add(palette[-1])
    return palette


def _default_colour(index: int) -> tuple[int, int, int]:
    """A colour for a class without one: the bits of index + 1, dealt to R, G, B."""
    colour = [0, 0, 0]
    for bit in range(8):
        colour[bit % 3] |= (index + 1 >> bit & 1) << 7 - bit // 3
    return tuple(colour)
