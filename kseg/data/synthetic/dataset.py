"""Procedural streets on disk in the folder layout of Cityscapes: nothing to download or register for."""

import json
import os
import pathlib

import numpy as np
from PIL import Image

from kseg.data.synthetic.scene import draw_street
from kseg.io.errors import InputError, check_whole
from kseg.io.files import locked, write_atomic, writing
from kseg.io.parallel import Workers

DRAWING_VERSION = 4  # raise when the drawing changes: older folders are then refused, not mixed with
MARKER = "synthetic.json"
MOST_STREETS = 999_999  # of a split: six digits of a name count them
MOST_PIXELS = 8192  # of a side
UNFINISHED = "synthetic.unfinished.json"
CITIES = {"train": ("alderburg", "brookhaven", "cedarstadt", "dunmere"), "val": ("eastmoor", "fernfeld")}


def draw_cityscapes(root, *, train=480, val=60, height=128, width=256, seed=0, workers=None, progress=None):
    """Draws synthetic streets into `root` in the exact folder layout of Cityscapes.

    leftImg8bit/{split}/{city}/*_leftImg8bit.png, gtFine/{split}/{city}/*_gtFine_{labelIds,instanceIds}.png.
    All 19 training classes occur, rare ones in a third of the streets or more. A frame depends on (seed, split, index,
    size) alone. A second call draws only what is missing; synthetic.json is written last.

    Args:
        root: folder, made where missing.
        train, val: frames of each split. height, width: their size in pixels.
        seed: int >= 0. workers: processes (None: one a core, at most 8); 1 draws in this one.
        progress: called as progress(done, total) after each frame drawn by this call.

    Returns:
        The number of frames drawn by this call.

    Raises:
        ValueError: a bad argument, or `root` holds another drawing or other data, or another process draws there.
    """
    if workers is None:
        workers = min(_cores(), 8)
    for name, value, least, most in (
        ("train", train, 1, MOST_STREETS),
        ("val", val, 1, MOST_STREETS),
        ("seed", seed, 0, None),
        ("height", height, 48, MOST_PIXELS),
        ("width", width, 64, MOST_PIXELS),
        ("workers", workers, 1, None),
    ):
        if check_whole(name, value, least) and most is not None and value > most:
            raise InputError(f"{name} must be at most {most}, got {value}.")
    root = pathlib.Path(root)
    seed, height, width, train, val = (int(v) for v in (seed, height, width, train, val))
    drawing = {
        "version": DRAWING_VERSION,
        "seed": seed,
        "height": height,
        "width": width,
        "train": train,
        "val": val,
    }
    if os.path.lexists(root) and not root.is_dir():
        what = "a file" if root.exists() else "a link to nothing"
        raise InputError(f"{root} must be a folder, got {what}. Choose another place for the streets.")
    if (root / MARKER).is_file() and _held(root / MARKER, root) == drawing and not _missing(root, drawing):
        return 0  # a folder that may be read alone
    with locked(root):
        return _draw_missing(root, drawing, workers, progress)


def _draw_missing(root, drawing, workers, progress):
    _claim(root, drawing)
    missing = _missing(root, drawing)
    for path in {path.parent for frame in missing for path in frame_paths(root, *frame)}:
        path.mkdir(parents=True, exist_ok=True)
    source = (str(root), *(drawing[name] for name in ("seed", "height", "width")))
    with Workers(source, min(workers, max(1, len(missing))), progress=False) as pool:
        for done, _ in enumerate(pool.map(_draw_frame, missing, "draw"), 1):
            if progress is not None:
                progress(done, len(missing))
    if (root / UNFINISHED).exists():
        os.replace(root / UNFINISHED, root / MARKER)
    return len(missing)


def _missing(root, drawing):
    """The frames, (split, index), of which a file is not there."""
    frames = [(split, i) for split in ("train", "val") for i in range(drawing[split])]
    return [frame for frame in frames if not all(path.is_file() for path in frame_paths(root, *frame))]


def check_drawing(root):
    """Refuse streets in `root` that an earlier or later version of kseg drew; a folder without streets passes.

    Raises:
        ValueError: the drawing in `root` is of another version.
    """
    path = pathlib.Path(root) / MARKER
    if not path.is_file():
        return
    version = _held(path, root).get("version")
    if version != DRAWING_VERSION:
        raise InputError(
            f"{root} must hold streets of drawing version {DRAWING_VERSION}, but holds version {version}. Remove "
            f"{pathlib.Path(root).parent} or choose another --data_dir; --dataset=cityscapes uses it as it is."
        )


def frame_paths(root, split, index):
    """The three files of a frame: image, label ids, instance ids."""
    cities = CITIES[split]
    city = cities[index % len(cities)]
    sequence = index // len(cities)
    stem = f"{city}_{sequence:06}_000019"  # Cityscapes labels the 20th frame of each sequence
    images, labels = (pathlib.Path(root) / kind / split / city for kind in ("leftImg8bit", "gtFine"))
    return (
        images / f"{stem}_leftImg8bit.png",
        labels / f"{stem}_gtFine_labelIds.png",
        labels / f"{stem}_gtFine_instanceIds.png",
    )


def _draw_frame(drawing, frame):
    """Draws one frame and writes its three files, the image last, each under a temporary name first.

    drawing: (root, seed, height, width). frame: (split, index).
    """
    root, seed, height, width = drawing
    split, index = frame
    image, labels, instances = draw_street((seed, ("train", "val").index(split), index), height, width)
    paths = frame_paths(root, split, index)
    for path, pixels in ((paths[2], instances), (paths[1], labels), (paths[0], image)):
        temporary = path.with_name(path.name + ".tmp")  # no name that a reader takes for an image
        with writing(path):
            Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG", compress_level=3)
            os.replace(temporary, path)


def _claim(root, drawing):
    """Makes root ours: says which drawing it holds, or refuses a folder that holds something else."""
    for name in (MARKER, UNFINISHED):
        path = root / name
        if not path.is_file():
            continue
        held = _held(path, root)
        if held != drawing:
            raise InputError(
                f"{root} must hold the streets asked for, {_words(drawing)}, but holds {_words(held)}. "
                "Remove it or choose another folder."
            )
        return
    foreign = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    if foreign:
        raise InputError(
            f"{root} must be a new or empty folder, or hold streets of kseg's, but holds {foreign[0]} and no {MARKER}. "
            "Choose another folder."
        )
    write_atomic(root / UNFINISHED, f"{json.dumps(drawing)}\n".encode())


def _held(path, root):
    """The drawing that a marker names."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path} is not JSON. Remove {root} or choose another folder.") from None
    return held if isinstance(held, dict) else {}


def _words(drawing):
    if not drawing:
        return "no drawing"
    return " ".join(f"{key}={value}" for key, value in drawing.items())


def _cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
