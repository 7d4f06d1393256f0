"""Label maps of a few images, kept when a run is scored: small PNG files without photographs, for the report's page."""

import pathlib

import numpy as np
from PIL import Image

from kseg.io.errors import InputError
from kseg.io.files import reading, replacing
from kseg.studies.run_counts import run_part
from kseg.visualization.label_maps import ignored_colour

FOLDER = "maps"
IMAGES = 12


def kept_images(count):
    """Return the indices of the images whose maps are kept, of `count` images: evenly spread, IMAGES at most."""
    return np.unique(np.linspace(0, count - 1, min(IMAGES, count)).round().astype(int)).tolist()


def truth_path(output, data, split, index):
    """Return the path of an image's true label map in a study's folder."""
    return pathlib.Path(output) / FOLDER / data / split / "truth" / f"{index:05}.png"


def prediction_path(output, model, data, seed, split, index):
    """Return the path of the label map that a run predicts."""
    folder = pathlib.Path(output) / FOLDER / data / split / "models" / model / run_part(seed)
    return folder / f"{index:05}.png"


def write_map(path, ids, palette):
    """Write class ids, uint8 (H, W), as a palette PNG. palette: C colours (R, G, B); what is no class has the id C."""
    picture = Image.fromarray(np.ascontiguousarray(ids))
    picture.putpalette(np.array([*palette, ignored_colour(palette)], np.uint8).tobytes())
    with replacing(path) as temporary:
        picture.save(temporary, "PNG", optimize=True)


def read_map(path, classes):
    """Return the class ids, uint8 (H, W), of `write_map`, or None if there is no such file.

    Raises:
        InputError: a file that is no such map. classes: C.
    """
    if not path.exists():
        return None
    try:
        with reading(path), Image.open(path) as picture:
            if picture.mode != "P":
                raise ValueError(f"mode {picture.mode}")
            ids = np.array(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(
            f"{path} is no label map of a study ({error}). Delete it: the page is made without."
        ) from error
    if ids.max() > classes:
        raise InputError(f"{path} must hold ids up to {classes}, but has {ids.max()}. Delete it.")
    return ids
