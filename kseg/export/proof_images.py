"""The images that an export is proved on: the run's own images, photographs, or synthetic streets."""

import dataclasses
import functools
import pathlib

import numpy as np
from PIL import Image

from kseg.data.pipeline.load import open_split
from kseg.data.records.manifest import load_manifest
from kseg.data.sampling import evenly_spread
from kseg.data.synthetic.scene import draw_street
from kseg.export.checked_output import has_records, photographs
from kseg.inference.compatibility import check_classes
from kseg.inference.label_model import label_set_of
from kseg.inference.predictor import compiled_with_confidence
from kseg.inference.read_image import read_image
from kseg.io.errors import InputError
from kseg.io.text import count_text
from kseg.layers.preprocessing import preprocess_layer
from kseg.runs.model_card import dataset_name
from kseg.runs.workdir import run_of

IMAGES = 21
SCALES = (1.0, 0.75, 0.5)
BATCH = 3
_LONGEST = 512  # side of an image in pixels: what the model makes of large ones is no other arithmetic
_SHORTEST = 37
_STREET = (210, 340)
_CALIBRATION_IMAGES = 100
_CALIBRATION_LONGEST = 1024


@dataclasses.dataclass(frozen=True)
class ProofImages:
    """Images to compare on, and the split to score on.

    where: in words, without paths of this machine. images: list of (name, uint8 (H, W, 3)). split: examples of the
    validation split in the model's label set (`kseg.data.pipeline.load.open_split`), None where there is none. notes:
    what was left out and why, and how many images were drawn.
    """

    where: str
    images: list
    split: object = None
    notes: tuple = ()

    def first(self):
        """Return the same with the first image alone."""
        return dataclasses.replace(self, images=self.images[:1])

    def batches(self):
        """Return (names, images uint8 (B, H, W, 3)): each image alone, then one batch of several of each size.

        There are three heights and three widths, none a multiple of 32. Where no size has several images, the first
        two make a batch of the smallest size.
        """
        count = -(-len(self.images) // len(SCALES))
        groups = [self.images[first : first + count] for first in range(0, len(self.images), count)]
        sizes = _sizes(self.images[0][1].shape[:2])
        alone = []
        together = []
        for group, size in zip(groups, sizes, strict=False):
            resized = [(name, _resized(image, size)) for name, image in group]
            alone += [([name], image[None]) for name, image in resized]
            several = resized[:BATCH]
            if len(several) > 1:
                together.append(([name for name, _ in several], np.stack([image for _, image in several])))
        if not together and len(self.images) > 1:
            pair = [(name, _resized(image, sizes[-1])) for name, image in self.images[:2]]
            together.append(([name for name, _ in pair], np.stack([image for _, image in pair])))
        return alone + together


def _sizes(shape):
    """Return three sizes (height, width) of about an image's shape."""
    factor = min(1.0, _LONGEST / max(shape))
    found = []
    for scale in SCALES:
        sides = []
        for axis, side in enumerate(shape):
            side = max(_SHORTEST, round(side * factor * scale))
            while side % 32 == 0 or side in [size[axis] for size in found]:
                side += 1
            sides.append(side)
        found.append(tuple(sides))
    return found


def _resized(image, size):
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def images_for(model, path, data=None, images=IMAGES):
    """Return the ProofImages for a model.

    Args:
        model: keras.Model. path: what it was loaded from, or None: a run names its records. data: a record folder or a
            folder of photographs that the user chose, None: the run's records if they are still there, else streets.
        images: how many to compare on; too few are filled up with synthetic streets.
    Raises:
        InputError: `data` is neither, or its classes are not the model's.
    """
    found = None
    if data is not None:
        found = _of_records(model, data, images) if has_records(data) else _of_photographs(data, images)
    if found is None:
        found = _of_run(model, path, images)
    missing = images - len(found.images)
    if not missing:
        return found
    height, width = _size_of(model)
    streets = [(f"drawn street {i}", draw_street((1, 0, i), height, width)[0]) for i in range(missing)]
    where = count_text(missing, "synthetic street")
    if found.images:
        where = f"{found.where} and {where}"
    were = "was a drawn street, no photograph" if missing == 1 else "were drawn streets, no photographs"
    notes = (*found.notes, f"{missing} of {images} images {were}.")
    return dataclasses.replace(found, where=where, images=[*found.images, *streets], notes=notes)


def _size_of(model):
    """Return the size of streets for a model: about the one it works at."""
    height, width = getattr(preprocess_layer(model), "size", None) or model.input_shape[1:3]
    if not (height and width):
        return _STREET
    factor = min(1, _LONGEST / max(height, width))
    return max(48, round(factor * height)), max(64, round(factor * width))


def _of_run(model, path, images):
    """The validation split that a run's flags.txt names, where it is still there and still the same."""
    empty = ProofImages("", [])
    if path is None:
        return empty
    stored = run_of(path).stored_or_none() or {}
    data = stored.get("data_dir")
    if not data:
        return empty
    try:
        return _of_records(model, data, images, stored)
    except (InputError, OSError) as error:
        return dataclasses.replace(empty, notes=(f"The run's records are not used: {error}",))


def _of_records(model, data, images, stored=()):
    known = label_set_of(model) or {}
    stored = dict(stored)
    manifest = load_manifest(data, label_space=stored.get("label_space"))
    name = "val" if "val" in manifest.splits else next(iter(manifest.splits))
    label_set = known.get("name") if known.get("name") in manifest.info.label_sets else None
    open_named = functools.partial(open_split, data, label_set=label_set, label_space=stored.get("label_space"))
    split = open_named(name)
    check_classes(model, split.label_set, data)
    found = of_split(split, images)
    missing = images - len(found.images)
    if missing and "train" in manifest.splits and name != "train":  # before streets fill up
        more = of_split(open_named("train"), missing)
        found = dataclasses.replace(found, where=f"{found.where}, {more.where}", images=[*found.images, *more.images])
    return found


def of_split(split, images):
    """Return the ProofImages of a split, of `kseg.data.pipeline.load.open_split`: so many images, evenly spread."""
    chosen = evenly_spread(len(split), images)
    pictures = [(split.split.names[i], split[int(i)][0]) for i in chosen]
    name = split.split.name
    where = f"{count_text(len(pictures), 'image')} of split {name} of {dataset_name(split.manifest)}"
    return ProofImages(where, pictures, split if name == "val" else None)


def _of_photographs(folder, images):
    paths = photographs(folder)
    chosen = evenly_spread(len(paths), images)
    pictures = [(paths[i].name, read_image(paths[i])) for i in chosen]
    return ProofImages(f"{count_text(len(pictures), 'photograph')} of folder {pathlib.Path(folder).name}", pictures)


def calibration_images(data):
    """Return images uint8 (H, W, 3) whose values int8 is fitted to: of a training split, or photographs."""
    if not has_records(data):
        paths = photographs(data)
        chosen = evenly_spread(len(paths), _CALIBRATION_IMAGES)
        return [_bounded(read_image(paths[i])) for i in chosen]
    splits = load_manifest(data).splits
    split = open_split(data, "train" if "train" in splits else next(iter(splits)))
    chosen = evenly_spread(len(split), _CALIBRATION_IMAGES)
    return [_bounded(split[int(i)][0]) for i in chosen]


def _bounded(image):
    """Return an image of at most _CALIBRATION_LONGEST pixels along each side."""
    factor = min(1, _CALIBRATION_LONGEST / max(image.shape[:2]))
    return _resized(image, tuple(max(1, round(side * factor)) for side in image.shape[:2]))


def reference(model):
    """Return a function (images uint8 (B, H, W, 3)) -> labels (B, H, W) and confidence, of the Keras model itself."""
    compiled = compiled_with_confidence(model)

    def run(images):
        labels, _, confidence = compiled(images, *images.shape[1:3])
        return np.asarray(labels), np.asarray(confidence)

    return run
