"""Tiny datasets on disk for the tests of readers, records and preparation."""

import json
import zipfile

import numpy as np
from PIL import Image

from kseg.data.datasets.listing import read_bytes
from kseg.io.images import decode_image

H = 16
W = 24


def image(seed, size=(H, W)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def label(seed, ids, size=(H, W)):
    return np.random.default_rng(seed).choice(np.array(ids, np.uint8), size)


def decoded(source, split):
    """(name, RGB image, ids of the label) of every frame of a split that a reader listed."""
    return [
        (frame.name, decode_image(read_bytes(frame.image), frame.name)[0], source.label(frame.label)[0])
        for frame in source.splits[split]
    ]


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def make_camvid(root, train=5, val=2):
    """JPEG images, 8-bit ids 0..11; returns the root."""
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            save(root / split / "images" / f"{split}_{i}.jpg", image(i), quality=95)
            save(root / split / "labels" / f"{split}_{i}.png", label(i, range(12)))
    return root


def make_cityscapes(root, train=3, val=2, instances=True):
    """The exact layout, PNG, ids 0..33, instance ids above 255."""
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            city = {"train": ("zurich", "aachen"), "val": ("munster", "lindau")}[split][i % 2]
            name = f"{city}_{i:06}_000019"
            save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", image(i))
            ids = label(i, range(34))
            folder = root / "gtFine" / split / city
            save(folder / f"{name}_gtFine_labelIds.png", ids)
            if instances:
                save(folder / f"{name}_gtFine_instanceIds.png", ids.astype(np.uint16) * 1000)
            (folder / f"{name}_gtFine_polygons.json").write_text("{}")
    return root


def zip_cityscapes(unpacked, target):
    """The two zips as they are distributed."""
    target.mkdir()
    for kind in ("leftImg8bit", "gtFine"):
        with zipfile.ZipFile(target / f"{kind}_trainvaltest.zip", "w") as archive:
            archive.writestr("README", "as distributed")
            for path in sorted((unpacked / kind).rglob("*.*")):
                archive.write(path, path.relative_to(unpacked))
    return target


CLASSES = {
    "classes": [
        {"id": 3, "name": "road", "color": [10, 20, 30]},
        {"id": 7, "name": "car", "color": [200, 0, 0]},
        {"id": 9, "name": "sky", "color": [0, 0, 255]},
    ],
    "void": [9],
}


def make_folder(root, classes=CLASSES, splits=("train", "val"), split_first=True):
    """Two frames a split of ids 3, 7, 9 and 255; PNG images."""
    for split in splits:
        for i in range(2):
            for kind, array in (("images", image(i)), ("labels", label(i, (3, 7, 9, 255)))):
                parts = (split, kind) if split_first else (kind, split)
                save(root.joinpath(*parts, f"{split}{i}.png"), array)
    (root / "classes.json").write_text(json.dumps(classes))
    return root
