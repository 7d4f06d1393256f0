"""The files that `predict` writes: which there are, where they go, and what they may replace there."""

import dataclasses
import hashlib
import io
import json
import os
import pathlib

import numpy as np
from PIL import Image, PngImagePlugin

from kseg import __version__
from kseg.inference.input_files import is_video
from kseg.inference.label_ids import IDS, check_ids
from kseg.inference.label_marks import CLASSES_FILE, MADE_BY, add_mark
from kseg.io.errors import InputError
from kseg.io.files import replacing, write_json
from kseg.io.images import MAX_TILED_PIXELS, header, large_images_allowed
from kseg.io.users_text import composed

# Kind of file -> its folder in the output, and its extension where a video is labelled: ids and confidence need a codec
# that keeps every number (FFV1), colours are for players (H.264).
KINDS = {
    "labels": ("", ".mkv"),
    "color": ("color", ".mp4"),
    "overlay": ("overlay", ".mp4"),
    "confidence": ("confidence", ".mkv"),
    "disagreement": ("disagreement", ".mkv"),
}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is to be written for each image.

    Args:
        kinds: of KINDS. "labels": ids, NAME.png. "color": color/NAME.png. "overlay": overlay/NAME.png, the image under
            the colours, with a legend. "confidence": confidence/NAME.png, 255 times the probability of each pixel's
            class. "disagreement": disagreement/NAME.png, 255 times the share of the largest disagreement that the
            models of an ensemble can have (`ensemble.largest_disagreement`).
        ids: of the labels, "dataset" or "train".
    Raises:
        InputError: another kind, one given twice, none.
    """

    kinds: tuple = ("labels", "color")
    ids: str = IDS[0]

    def __post_init__(self):
        kinds = self.kinds
        valid = isinstance(kinds, (tuple, list)) and kinds and all(kind in KINDS for kind in kinds)
        if not valid or len(set(kinds)) < len(kinds):
            if isinstance(kinds, (tuple, list)):
                given = ", ".join(str(kind) or "an empty name" for kind in kinds) or "nothing"
            else:
                given = repr(kinds)
            raise InputError(f"--write must be some of {', '.join(KINDS)}, each once, got {given}.")
        check_ids(self.ids)

    @property
    def in_colour(self):
        """Whether the model's colours are needed."""
        return "color" in self.kinds or "overlay" in self.kinds


USUAL = Wanted()


def output_paths(images, output, kinds):
    """Return {kind: path} for each (path, name); InputError if two would be one file on some system."""
    outputs = [{kind: _file(path, name, kind) for kind in kinds} for path, name in images]
    pictures = [(path, picture) for (path, _), files in zip(images, outputs, strict=True) for picture in files.values()]
    first = {_as_one(CLASSES_FILE): "the list of classes"}
    for path, picture in pictures:
        _check_alone(first.setdefault(_as_one(picture), path), path, output / picture)
    for path, picture in pictures:
        for folder in pathlib.PurePosixPath(picture).parents:  # one of them may be called x.png
            _check_alone(first.get(_as_one(str(folder)), path), path, output / folder)
    return [{kind: output / picture for kind, picture in files.items()} for files in outputs]


def _file(path, name, kind):
    folder, extension = KINDS[kind]
    if not is_video(path):
        extension = ".png"
    return f"{folder}/{name}{extension}" if folder else f"{name}{extension}"


def check_inside(name, what):
    """Raise InputError where the label map of that name would not lie in the output folder: "../a", "/a"."""
    path = pathlib.PurePath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name:
        raise InputError(f"{what}: its label map would be {name}.png, outside of the output. Prepare the data again.")


def _as_one(picture):
    return composed(picture).casefold()


def _check_alone(other, path, picture):
    if other is not path:
        raise InputError(
            f"Images need different names, but {other} and {path} would both be written to {picture}, at least where "
            "case is ignored. Rename one, or run once for each with its own output folder."
        )


def check_replaceable(path):
    """Raise InputError for anything at a path but a picture as `save_label_map` wrote it. No video is replaced."""
    place = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if place != path:
        if not place.is_dir():
            raise InputError(f"{place} must be a folder, but is a file. Choose another output folder, or move it.")
        return
    if is_video(path):
        raise InputError(f"{path} is there already, and videos are not replaced. Choose another output folder.")
    stored = picture = None
    try:
        data = path.read_bytes()
        header(data, str(path), most=MAX_TILED_PIXELS)
        with large_images_allowed(), Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            stored = image.info.get(MADE_BY)
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
    digest.update(np.ascontiguousarray(picture))
    return digest.hexdigest()


def save_label_map(path, picture, mark=None):
    """Write a PNG, completely or not at all, so that `check_replaceable` can tell whether it was changed.

    Args:
        path: pathlib.Path; its folder is made if missing. picture: uint8 (H, W) or (H, W, 3) colours. mark: which ids
            it holds (`label_ids.LabelIds`), None if it holds none.
    """
    text = PngImagePlugin.PngInfo()
    text.add_text(MADE_BY, f"{__version__} {_digest(picture)}")
    if mark is not None:
        add_mark(text, mark)
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, pnginfo=text)


def check_classes(output, facts):
    """Return whether OUTPUT/classes.json is there; InputError if it says something else than would be written."""
    path = output / CLASSES_FILE
    if not os.path.lexists(path):
        return False
    if _without_version(_read(path)) != _without_version(facts):
        raise InputError(
            f"{path} is there already and says something else than what would be written: label maps there hold other "
            "ids or classes, or the file is not kseg's. Choose another output folder."
        )
    return True


def save_classes(output, facts):
    """Write which ids the label maps in a folder hold, with names and colours, as OUTPUT/classes.json.

    Args:
        output: pathlib.Path, made if missing. facts: of `label_ids.LabelIds`.
    Returns:
        the file's path, None where it is there already and says the same.
    Raises:
        InputError: a file of that name that says something else; it stays.
    """
    if check_classes(output, facts):
        return None
    path = output / CLASSES_FILE
    write_json(path, facts)
    return path


def _read(path):
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _without_version(facts):
    return {**facts, "kseg_version": ""} if isinstance(facts, dict) else facts
