"""Cityscapes (Cordts et al. 2016, arXiv 1604.01685): its 34 ids and its reader, folders or zips."""

import os
import re

import numpy as np

from kseg.data.datasets.listing import Problem, Reference, Source, archive_names, no_source, one_line_each, pair
from kseg.data.labels import IGNORE_LABEL, DatasetInfo, label_set_of
from kseg.io.errors import InputError, MissingFileError


def check_regular_ids(manifest) -> None:
    """Raise InputError unless records are of Cityscapes and hold its regular ids, as its protocol needs."""
    if manifest.info.name != "cityscapes" or manifest.label_space == "cityscapes/train_ids":
        raise InputError(
            f'Protocol "cityscapes" needs records of Cityscapes that hold its regular ids, {manifest.data_dir} holds '
            f"{manifest.label_space}."
        )


def regular_id_table(label_set, outputs):
    """Return the table of `regular_ids` for a label set of `kseg.data.datasets.cityscapes.info()`.

    Raises:
        ValueError: a class that several regular ids share.
    """
    table = np.zeros(max(outputs, 256), np.uint8)  # 0: "unlabeled"; a SavedModel's ids are any uint8
    for training_id, name in enumerate(label_set.classes):
        ids = np.flatnonzero(label_set.table[:34] == training_id)
        if len(ids) != 1:
            raise InputError(
                f"Cityscapes' regular ids need one id for each class, but {name!r} of label set {label_set.name} "
                f"stands for {len(ids)}. Only the label sets train_ids and all_ids have them."
            )
        table[training_id] = ids[0]
    return table


# (name, RGB, is a training class); the position is the id. Licence plates (id -1) are in no label image.
_IDS = (
    ("unlabeled", (0, 0, 0), False),
    ("ego vehicle", (0, 0, 0), False),
    ("rectification border", (0, 0, 0), False),
    ("out of roi", (0, 0, 0), False),
    ("static", (0, 0, 0), False),
    ("dynamic", (111, 74, 0), False),
    ("ground", (81, 0, 81), False),
    ("road", (128, 64, 128), True),
    ("sidewalk", (244, 35, 232), True),
    ("parking", (250, 170, 160), False),
    ("rail track", (230, 150, 140), False),
    ("building", (70, 70, 70), True),
    ("wall", (102, 102, 156), True),
    ("fence", (190, 153, 153), True),
    ("guard rail", (180, 165, 180), False),
    ("bridge", (150, 100, 100), False),
    ("tunnel", (150, 120, 90), False),
    ("pole", (153, 153, 153), True),
    ("polegroup", (153, 153, 153), False),
    ("traffic light", (250, 170, 30), True),
    ("traffic sign", (220, 220, 0), True),
    ("vegetation", (107, 142, 35), True),
    ("terrain", (152, 251, 152), True),
    ("sky", (70, 130, 180), True),
    ("person", (220, 20, 60), True),
    ("rider", (255, 0, 0), True),
    ("car", (0, 0, 142), True),
    ("truck", (0, 0, 70), True),
    ("bus", (0, 60, 100), True),
    ("caravan", (0, 0, 90), False),
    ("trailer", (0, 0, 110), False),
    ("train", (0, 80, 100), True),
    ("motorcycle", (0, 0, 230), True),
    ("bicycle", (119, 11, 32), True),
)


def info() -> DatasetInfo:
    """Return Cityscapes' ids and label sets.

    Label sets: "train_ids" (19 classes, the rest void), "all_ids" (ids 0..33 as they are) and "fischer2021_r2unet"
    (that of the authors' code: min(id, 20), 21 classes, the last of them everything from traffic sign to bicycle).
    """
    names = [row[0] for row in _IDS]
    colours = [row[1] for row in _IDS]
    train = [i for i, row in enumerate(_IDS) if row[2]]
    void = [i for i, row in enumerate(_IDS) if not row[2]]
    train_ids = label_set_of("train_ids", train, [names[i] for i in train], [colours[i] for i in train], void)
    all_ids = label_set_of("all_ids", range(len(_IDS)), names, colours)
    merged = label_set_of("fischer2021_r2unet", range(21), names[:20] + ["the rest"], colours[:21])
    table = merged.table.copy()
    table[20 : len(_IDS)] = 20
    table[IGNORE_LABEL] = 0  # as the authors' code does before the min; it ignores nothing
    fischer2021 = type(merged)(merged.name, merged.classes, merged.palette, table)
    return DatasetInfo(
        name="cityscapes",
        id_names=dict(enumerate(names)) | {255: "void"},
        id_palette=dict(enumerate(colours)) | {255: (0, 0, 0)},
        void_ids=(*void, 255),
        label_sets={s.name: s for s in (train_ids, all_ids, fischer2021)},
    )


_ZIPS = ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")
_FILE = re.compile(
    r"^(?:leftImg8bit|gtFine)/(?P<split>train|val)/(?P<city>[^/]+)/(?P<name>[^/]+)"
    r"_(?P<what>leftImg8bit|gtFine_labelIds|gtFine_instanceIds)\.png$"
)
_IMAGE = re.compile(r"^leftImg8bit/(train|val)/.*[.](png|jpe?g|tiff?|bmp|webp)$", re.IGNORECASE)


def read(source) -> Source:
    """List Cityscapes' train and val splits, from folders or from the zips without unpacking.

    The test split is left out: its public labels are dummies, scored on the benchmark's server only.

    Args:
        source: folder that holds leftImg8bit/ and gtFine/, or leftImg8bit_trainvaltest.zip and
            gtFine_trainvaltest.zip (the folders win where it holds both).

    Returns:
        A Source whose frames are named like "aachen_000000_000019", with instance maps where there are any.

    Raises:
        FileNotFoundError: the folder is missing or holds neither. ValueError: a zip is damaged.
    """
    root = os.path.abspath(os.fspath(source))
    if not os.path.isdir(root):
        raise no_source(root)
    images = {split: {} for split in ("train", "val")}
    labels, instances = ({split: {} for split in images} for _ in range(2))
    problems = []
    for relative, reference in sorted(_files(root)):
        match = _FILE.match(relative)
        if match is None:
            if _IMAGE.match(relative):
                line = f"not a Cityscapes name (CITY_SEQUENCE_FRAME_leftImg8bit.png): {relative}"
                problems.append(Problem("name", line))
            continue
        table = {"leftImg8bit": images, "gtFine_labelIds": labels, "gtFine_instanceIds": instances}[match["what"]]
        table[match["split"]][match["name"]] = reference
    listing = Source(info(), root, {})
    splits = {}
    for split in images:
        splits[split], found = pair(split, images[split], labels[split], listing.shown, instances[split])
        problems += found
    return Source(listing.info, root, splits, tuple(one_line_each(problems)))


def _files(root: str):
    """Yield (path inside the dataset, reference) of all files."""
    if os.path.isdir(os.path.join(root, "leftImg8bit")) or os.path.isdir(os.path.join(root, "gtFine")):
        for part in ("leftImg8bit", "gtFine"):
            if not os.path.isdir(os.path.join(root, part)):
                raise MissingFileError(f"{root} holds only one of leftImg8bit/ and gtFine/: {part}/ is missing.")
            for folder, _, files in os.walk(os.path.join(root, part)):
                for file in files:
                    path = os.path.join(folder, file)
                    yield os.path.relpath(path, root).replace(os.sep, "/"), path
        return
    paths = [os.path.join(root, name) for name in _ZIPS]
    missing = [name for name, path in zip(_ZIPS, paths, strict=True) if not os.path.isfile(path)]
    if missing:
        raise MissingFileError(
            f"{root} holds neither leftImg8bit/ and gtFine/ nor {' and '.join(missing)}. Download both zips "
            "from https://www.cityscapes-dataset.com/downloads/ (registration) and put them there."
        )
    for path in paths:
        for name in archive_names(path):
            yield name, (path, name)


TEST_CITIES = {"berlin": 544, "bielefeld": 181, "bonn": 46, "leverkusen": 58, "mainz": 298, "munich": 398}  # images
# Of a snippet each, numbered from 0, the frame 19; the two others' frames lie unevenly in a few long recordings.
NUMBERED_TEST_CITIES = ("berlin", "bonn", "leverkusen", "munich")
_TEST_IMAGE = re.compile(r"(?:^|/)test/[^/]+/(?P<name>[a-z]+_\d{6}_\d{6})_leftImg8bit\.png$")


def list_test_images(source) -> dict[str, Reference]:
    """List the images of the test split: name ("berlin_000000_000019") -> file or zip member, by name.

    Args:
        source: the folder that holds leftImg8bit/test/ or leftImg8bit_trainvaltest.zip, a folder on the way to the
            images (leftImg8bit, test), or that zip.

    Raises:
        FileNotFoundError: no such source, or no test image in it. ValueError: images missing or doubled, counted by
            city; a damaged zip.
    """
    root = os.path.abspath(os.fspath(source))
    if not os.path.exists(root):
        raise MissingFileError(f"There is no {root}: the test images come with {_ZIPS[0]}.")
    found: dict[str, Reference] = {}
    for shown, reference in _image_files(root):
        if match := _TEST_IMAGE.search(shown):
            if match["name"] in found:
                raise InputError(f"{root} holds {match['name']}_leftImg8bit.png twice. Name the folder to take.")
            found[match["name"]] = reference
    if not found:
        raise MissingFileError(f"{root} holds neither leftImg8bit/test/CITY/*_leftImg8bit.png nor {_ZIPS[0]}.")
    cities = [name.partition("_")[0] for name in found]
    counts = {city: cities.count(city) for city in sorted({*cities, *TEST_CITIES})}
    wrong = [f"{city} {n} of {TEST_CITIES.get(city, 0)}" for city, n in counts.items() if n != TEST_CITIES.get(city)]
    if wrong:
        total = sum(TEST_CITIES.values())
        raise InputError(f"The test set has {total} images, {root} holds {len(found)}: {', '.join(wrong)}.")
    return dict(sorted(found.items()))


def _image_files(root: str):
    """Yield (path to match, reference) of the files below a folder, else in the zip there, or of a zip."""
    archive = root
    if os.path.isdir(root):
        paths = [os.path.join(folder, file) for folder, _, files in os.walk(root) for file in files]
        shown = [path.replace(os.sep, "/") for path in paths]
        archive = os.path.join(root, _ZIPS[0])
        if any(map(_TEST_IMAGE.search, shown)) or not os.path.isfile(archive):
            yield from zip(shown, paths, strict=True)
            return
    yield from ((name, (archive, name)) for name in archive_names(archive))
