"""What `predict` reads: files, patterns and folders of images and videos."""

import dataclasses
import glob
import itertools
import os
import pathlib
import zipfile

from kseg.data.datasets.listing import is_left_out, walk_files
from kseg.inference.label_marks import is_label_map
from kseg.inference.videos import NEEDS_PYAV, is_installed, is_label_video
from kseg.io.errors import InputError
from kseg.io.files import reading
from kseg.io.images import HEIC_EXTENSIONS, IMAGE_EXTENSIONS, NO_HEIC, SIGNATURES
from kseg.io.text import count_text, first_names
from kseg.io.users_text import composed

_MOST_NAMES = 3
_ADVICE = (
    "Give image or video files, quoted patterns or folders. A pattern finds files, not folders; hidden files and notes "
    "(.txt, .json, ...) do not count."
)
VIDEO_EXTENSIONS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")


def is_video(path):
    """Whether a path is that of a video, by its ending."""
    return str(path).lower().endswith(VIDEO_EXTENSIONS)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What patterns, folders and files give `predict` to do.

    images: (path, name of its label map) of images and videos, sorted. folders: that were walked. left_out: a line for
    each file in them that is of another type or cannot be opened. notes: lines on files that are no inputs.
    """

    images: list
    folders: list
    left_out: list
    notes: list


def list_images(patterns):
    """Return the Inputs of files, patterns and folders.

    A file is itself, even where its name has brackets. Any other text is a pattern, in which ** stands for folders of
    any depth; it leaves out what `kseg.data.datasets.listing` leaves out. A name is the file's without extension. A
    folder is walked as the readers of datasets walk one, and the names keep the sub-folders: "seq1/0000". Pictures and
    videos that kseg itself wrote are no inputs, unless they are named.

    Raises:
        InputError: a pattern that no file matches; a folder without images and videos.
    """
    images = {}
    folders = []
    unmatched = []
    left_out = {}
    written = {}
    for pattern in patterns:
        if os.path.isdir(pattern):
            folders.append(pattern)
            found, others = _in_folder(pattern)
            left_out |= {os.path.abspath(path): line for path, line in others.items()}
        else:
            found = {path: pathlib.Path(path).stem for path in _matches(pattern)}
        if unplayed := _unplayed(pattern, found):
            left_out |= {os.path.abspath(path): f"{path}: {NEEDS_PYAV}" for path in unplayed}
            found = {path: name for path, name in found.items() if path not in unplayed}
        own = {path for path in found if path != pattern and _is_own(path)}
        written |= {os.path.abspath(path): path for path in sorted(own)}
        found = {path: name for path, name in found.items() if path not in own}
        if not found:
            unmatched.append(pattern)
        for path, name in found.items():
            images.setdefault(os.path.abspath(path), (path, name))
    notes = []
    if written:
        notes.append(
            f"Left out: {count_text(len(written), 'file')} that kseg wrote "
            f"({first_names(list(written.values()), _MOST_NAMES)})."
        )
    if unmatched:
        raise InputError(" ".join([*_faults(unmatched, folders, list(left_out.values())), *notes, _ADVICE]))
    return Inputs(sorted(images.values()), folders, list(left_out.values()), notes)


def _unplayed(pattern, found):
    """Return the videos among what a pattern or folder gave that PyAV is missing for, if it gave others than those."""
    clips = [path for path in found if path != pattern and is_video(path)]
    return [] if len(clips) == len(found) or is_installed() else clips


def check_kinds(paths):
    """Raise InputError if no file of some is an image or a video, by its name or its first bytes.

    Where others are among them they are read, and those that are none are told as damaged.
    """
    if not paths or any(is_video(path) or _may_be_image(path) for path in paths):
        return
    advice = " Unpack the zip, and give its folder." if any(map(zipfile.is_zipfile, paths)) else ""
    if any(str(path).lower().endswith(HEIC_EXTENSIONS) for path in paths):
        advice = f" {NO_HEIC}."
    raise InputError(
        f"Neither an image nor a video: {first_names(paths, _MOST_NAMES)}. Images are PNG, JPEG, WebP, TIFF and BMP; "
        f"videos end with {', '.join(VIDEO_EXTENSIONS)}.{advice}"
    )


def _may_be_image(path):
    if str(path).lower().endswith(IMAGE_EXTENSIONS) or not os.path.isfile(path):  # a pipe gives its bytes once
        return True
    with reading(path), open(path, "rb") as file:
        return file.read(8).startswith(SIGNATURES)


def _is_own(path):
    return is_label_video(path) if is_video(path) else is_label_map(path)


def _faults(unmatched, folders, left_out):
    patterns = [pattern for pattern in unmatched if pattern not in folders]
    empty = [folder for folder in unmatched if folder in folders]
    faults = [f"No file matches {', '.join(one or 'an empty name' for one in patterns)}."] if patterns else []
    others = f" ({first_names(left_out, _MOST_NAMES)})" if left_out else ""
    return faults + ([f"No image or video is in {', '.join(empty)}{others}."] if empty else [])


def _in_folder(folder):
    """Return ({path: name} of the images and videos in a folder and its folders, {path: line} of each other file)."""
    found = {}
    others = {}
    for path in walk_files(folder):
        if is_left_out(os.path.relpath(path, folder)):
            continue
        name, extension = os.path.splitext(os.path.relpath(path, folder).replace(os.sep, "/"))
        extension = extension.lower()
        if not os.path.isfile(path):
            others[path] = f"{path}: cannot be opened (a link to nothing?)"
        elif extension in HEIC_EXTENSIONS:
            others[path] = f"{path}: {NO_HEIC}"
        elif extension not in (*IMAGE_EXTENSIONS, *VIDEO_EXTENSIONS):
            others[path] = f"{path}: neither an image nor a video by its name"
        else:
            found[path] = composed(name)
    return found, others


def _matches(pattern):
    if os.path.isfile(pattern):
        return [pattern]
    above = pathlib.Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pathlib.Path(pattern).parts))
    paths = [path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path)]
    return [path for path in paths if not is_left_out(os.path.relpath(path, above))]
