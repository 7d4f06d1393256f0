"""An image as people give it: an array, a path, the bytes of a file, Pillow's own."""

import glob
import os
import pathlib

import numpy as np
from PIL.Image import Image as PillowImage

from kseg.io.errors import InputError, MissingFileError
from kseg.io.files import checked_path, reading
from kseg.io.images import MAX_PIXELS, MAX_TILED_PIXELS, decode_image, upright_rgb

_MANY = "Give a list of files, such as sorted(glob.glob('photos/*.jpg')); the command kseg predict takes folders too."
_OF_LISTS = " A list is one of several images: give one of numbers as numpy.array(image, 'uint8')."


def most_pixels(looks):
    """Return how many pixels an image may have that is looked at so (Looks)."""
    return MAX_PIXELS if looks.tile is None else MAX_TILED_PIXELS


def check_image(image, name="the image"):
    """Raise what `read_image` raises for a path of nothing, or for what is no image; files are not opened.

    That is for before a model is loaded.
    """
    if isinstance(image, (str, os.PathLike)):
        image = checked_path(image, "image")
        if os.path.isdir(image):
            raise InputError(f"An image must be a file, but {image} is a folder. {_MANY}")
        if not os.path.exists(image):
            advice = f" {_MANY}" if glob.has_magic(os.fspath(image)) else ""
            raise MissingFileError(f"There is no {image}.{advice}")
    elif not isinstance(image, (bytes, bytearray, PillowImage)):
        read_image(image, name)


def read_image(image, name="the image", most=MAX_PIXELS):
    """Return uint8 (H, W, 3) RGB, upright, of an array, a path, the bytes of a file or Pillow's image.

    ValueError for anything else.

    name: what errors call an array or bytes. most: pixels that a file may have.
    """
    if isinstance(image, (str, os.PathLike)):
        image = checked_path(image, "image")
        with reading(image):
            encoded = pathlib.Path(image).read_bytes()
        return decode_image(encoded, str(image), most=most)[0]
    if isinstance(image, (bytes, bytearray)):
        return decode_image(bytes(image), name, most=most)[0]
    if isinstance(image, PillowImage):
        return upright_rgb(image, name)
    try:
        array = np.asarray(image)
    except ValueError as error:  # NumPy's own, of lists of several lengths
        raise InputError(
            f"An image must be uint8 (H, W, 3) RGB, got {type(image).__name__} for {name}: {error}."
        ) from error
    if array.dtype == object:
        raise InputError(f"An image must be a path or uint8 (H, W, 3) RGB, got {type(image).__name__} for {name}.")
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        got = f"{array.dtype} of shape {array.shape}" if hasattr(image, "__array__") else type(image).__name__
        advice = _OF_LISTS if isinstance(image, (list, tuple)) else _advice(array)
        raise InputError(f"An image must be uint8 (H, W, 3) RGB, got {got} for {name}.{advice}")
    return array


def _advice(array):
    """Return how to make an image of an array that looks like one; "" for all others."""
    if array.ndim == 4 and array.shape[0] == 1:
        return " Give image[0]: one image, no batch."
    if array.ndim == 4 and len(array):
        return " It looks like a batch: give its images one by one, or kseg.predict their list, list(image)."
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        return " Give image.transpose(1, 2, 0): channels last."
    if array.ndim == 3 and array.shape[2] == 4:
        return " Give image[:, :, :3]: without alpha."
    if array.ndim == 2:
        return " Give numpy.stack([image] * 3, axis=-1) for a grey image."
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind not in "fiu" or not array.size:
        return ""
    least, most = array.min(), array.max()
    if not np.isfinite([least, most]).all():
        return " Its values must be finite."
    if least < 0 or most > 255:
        return f" Its values are {least:g} to {most:g}: give the image as it was before that, with 0 to 255."
    if most <= 1:
        return " Its values are 0 to 1: give (image * 255).round().astype('uint8')."
    return " Its values are 0 to 255: give image.round().clip(0, 255).astype('uint8')."
