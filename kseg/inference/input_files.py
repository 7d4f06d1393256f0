"""What `predict` reads: files, patterns and folders of images and videos."""

import glob
import itertools
import os
import pathlib

from kseg.data.datasets.listing import OTHER_TYPE, is_left_out, list_stems, one_line_each
from kseg.io.errors import InputError
from kseg.io.images import IMAGE_EXTENSIONS
from kseg.io.text import first_names

_MOST_NAMES = 3
VIDEO_EXTENSIONS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")


def is_video(path):
    """Whether a path is that of a video, by its ending."""
    return str(path).lower().endswith(VIDEO_EXTENSIONS)


def list_images(patterns):
    """Return (list of (path, name of its label map), folders that were walked) of files, patterns and folders.

    A file is itself, even where its name has brackets. Any other text is a pattern, in which ** stands for folders of
    any depth; it leaves out what `kseg.data.datasets.listing` leaves out. A name is the file's without extension. A
    folder is walked as the readers of datasets walk one, and the names keep the sub-folders: "seq1/0000".

    Raises:
        InputError: a pattern that no file matches; a folder without images and videos, or with files that are neither.
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
        patterns = [pattern for pattern in unmatched if pattern not in folders]
        empty = [folder for folder in unmatched if folder in folders]
        faults = [f"No file matches {', '.join(patterns)}."] if patterns else []
        faults += [f"No image or video is in {', '.join(empty)}."] if empty else []
        raise InputError(
            f"{' '.join(faults)} Give image or video files, quoted patterns or folders. A pattern finds files, not "
            "folders; hidden files and notes (.txt, .json, ...) do not count."
        )
    return sorted(images.values()), folders


def _in_folder(folder):
    extensions = (*IMAGE_EXTENSIONS, *VIDEO_EXTENSIONS)
    found, _, problems = list_stems(folder, extensions, str)
    if problems:
        foreign = [problem.file for problem in problems if problem.cause == OTHER_TYPE]
        faults = one_line_each([problem for problem in problems if problem.cause != OTHER_TYPE])
        if foreign:
            faults.insert(0, f"of another type: {first_names(foreign, _MOST_NAMES)}")
        raise InputError(
            f"{folder} must hold only images and videos ({', '.join(extensions)}), but it has files "
            f"{'; '.join(faults)}. Move such files, or give a pattern that leaves them out."
        )
    return {path: name for name, path in found.items()}


def _matches(pattern):
    if os.path.isfile(pattern):
        return [pattern]
    above = pathlib.Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pathlib.Path(pattern).parts))
    paths = [path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path)]
    return [path for path in paths if not is_left_out(os.path.relpath(path, above))]
