"""The files of `predict`: which images it reads, where their label maps go, and what it may replace there."""

import glob
import hashlib
import io
import itertools
import os
import pathlib
import unicodedata

import numpy as np
from PIL import Image, PngImagePlugin

from kseg import __version__
from kseg.data.datasets.listing import is_left_out, list_stems, one_line_each, read_bytes
from kseg.io.errors import InputError
from kseg.io.files import reading, replacing, writing
from kseg.io.images import IMAGE_EXTENSIONS, header
from kseg.io.text import first_names

_MADE_BY = "kseg label map"  # a text in each PNG: the version and the digest of the pixels that kseg wrote
_HEAD = 2**16  # bytes that hold the header of most images
_SHOWN = 10  # files named in one message


def list_images(patterns):
    """Return (list of (path, name of its label map), folders that were walked) of files, patterns and folders.

    A file is itself, even where its name has brackets. Any other text is a pattern, in which ** stands for folders of
    any depth; it leaves out what `kseg.data.datasets.listing` leaves out. A name is the file's without extension. A
    folder is walked as the readers of datasets walk one, and the names keep the sub-folders: "seq1/0000".

    Raises:
        InputError: a pattern that no file matches; a folder without images, or with files that are not images.
    """
    images = {}
    folders = []
    unmatched = []
    for pattern in patterns:
        if os.path.isdir(pattern):
            folders.append(pattern)
            found = _in_folder(pattern)
        else:
            found = {path: pathlib.Path(path).stem for path in _matches(pattern)}
        if not found:
            unmatched.append(pattern)
        for path, name in found.items():
            images.setdefault(os.path.abspath(path), (path, name))
    if unmatched:
        raise InputError(
            f"No file matches {', '.join(unmatched)}. Give image files, quoted patterns or folders; hidden files and "
            "notes (.txt, .json, ...) beside the images do not count."
        )
    return sorted(images.values()), folders


def _in_folder(folder):
    found, _, problems = list_stems(folder, IMAGE_EXTENSIONS, str)
    if problems:
        raise InputError(
            f"{folder} must hold only images: {'; '.join(one_line_each(problems))}. Move such files, "
            "or give a pattern that leaves it out."
        )
    return {path: name for name, path in found.items()}


def _matches(pattern):
    if os.path.isfile(pattern):
        return [pattern]
    above = pathlib.Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pathlib.Path(pattern).parts))
    paths = [path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path)]
    return [path for path in paths if not is_left_out(os.path.relpath(path, above))]


def check_images(paths):
    """Raise InputError, with all names, where the header of a file is not that of an image that kseg reads."""
    errors = []
    for path in paths:
        try:
            _check_image(str(path))
        except InputError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise InputError(
            f"{len(errors)} of {len(paths)} images cannot be read, so nothing was written: "
            f"{first_names(errors, _SHOWN)}"
        )


def _check_image(path):
    with reading(path), open(path, "rb") as file:
        head = file.read(_HEAD)
    try:
        header(head, path)
    except InputError:
        if len(head) < _HEAD:
            raise
        header(read_bytes(path), path)


def label_map_paths(images, output):
    """Return (label map, its colours) for each (path, name); InputError if two would be one file on some system."""
    pictures = [(path, picture) for path, name in images for picture in (f"{name}.png", f"color/{name}.png")]
    first = {}
    for path, picture in pictures:
        _check_alone(first.setdefault(_as_one(picture), path), path, output / picture)
    for path, picture in pictures:
        for folder in pathlib.PurePosixPath(picture).parents:  # one of them may be called x.png
            _check_alone(first.get(_as_one(str(folder)), path), path, output / folder)
    return [(output / f"{name}.png", output / "color" / f"{name}.png") for _, name in images]


def check_inside(name, what):
    """Raise InputError where the label map of that name would not lie in the output folder: "../a", "/a"."""
    path = pathlib.PurePath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name:
        raise InputError(f"{what}: its label map would be {name}.png, outside of the output. Prepare the data again.")


def _as_one(picture):
    return unicodedata.normalize("NFC", picture).casefold()


def _check_alone(other, path, picture):
    if other is not path:
        raise InputError(
            f"Images need different names, but {other} and {path} would both be written to {picture}, at least where "
            "case is ignored. Rename one, or run once for each with its own output folder."
        )


def check_replaceable(path):
    """Raise InputError for anything at a path but a picture as `save_label_map` wrote it."""
    place = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if place != path:
        if not place.is_dir():
            raise InputError(f"{place} must be a folder, but is a file. Choose another output folder, or move it.")
        return
    stored = picture = None
    try:
        data = path.read_bytes()
        header(data, str(path))
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            stored = image.info.get(_MADE_BY)
            picture = np.asarray(image)
    except (OSError, ValueError, SyntaxError, EOFError):
        pass  # no picture, so not kseg's either
    if stored is None:
        raise InputError(f"{path} is not a label map that kseg wrote. Choose another output folder, or move it.")
    if picture is None or not stored.endswith(_digest(picture)):
        raise InputError(
            f"{path} was changed since kseg wrote it, or an earlier version wrote it. Choose another output folder, or "
            "move it."
        )


def _digest(picture):
    digest = hashlib.sha256(f"{picture.dtype} {picture.shape}".encode())
    digest.update(picture.tobytes())
    return digest.hexdigest()


def save_label_map(path, picture):
    """Write a PNG, completely or not at all, so that `check_replaceable` can tell whether it was changed.

    Args:
        path: pathlib.Path; its folder is made if missing. picture: uint8 (H, W) ids or (H, W, 3) colours.
    """
    text = PngImagePlugin.PngInfo()
    text.add_text(_MADE_BY, f"{__version__} {_digest(picture)}")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, pnginfo=text)
