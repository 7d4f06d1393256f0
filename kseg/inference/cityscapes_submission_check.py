"""A folder or zip of label maps for Cityscapes' test server, checked before it is sent; no model, no TensorFlow.

The server takes one PNG for each of the 1,525 test images: 2048x1024, 8-bit grey, the regular ids of the benchmark
(`labelIds`, road is 7), named CITY_SEQUENCE_FRAME*.png; folders do not matter (cityscapesScripts,
evaluation/evalPixelLevelSemanticLabeling.py; Cordts et al. 2016).
"""

import collections
import functools
import os
import pathlib
import re

import numpy as np

from kseg.data.datasets import cityscapes
from kseg.data.datasets.listing import archive_names, read_bytes
from kseg.io import images
from kseg.io.errors import InputError, MissingFileError
from kseg.io.parallel import map_ahead
from kseg.io.progress import progress_bar
from kseg.io.text import first_names, size_text
from kseg.metrics.cityscapes_scores import NAMES

SIZE = (1024, 2048)  # height, width
_MAX_BYTES = 2**24  # of a label map's file: eight for each of its pixels
AHEAD = 8  # images decoded before they are asked for: 6 MB each
_NAME = re.compile(r"^([a-z]+_\d{6}_\d{6}).*\.png$")
listed = functools.partial(first_names, most=8)  # of one kind of problem
_VOID = cityscapes.info().void_ids
_TRAINING_IDS = (*range(cityscapes.info().label_set().num_classes), 255)
_COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_NOTE = "predict ids that are not scored; each such pixel counts as a miss"


def check_submission(path, source=None, progress=False):
    """Check a folder or zip of label maps as the test server would, and for faults that it cannot see; changes nothing.

    Args:
        path: folder (with its subfolders) or zip. source: where the test images are, to know all names; else the
            cities' counts must be right, and the names in those four cities whose images are numbered.
        progress: show a bar of files.
    Returns:
        (int, list of str): how many label maps there are, and notes on what is legal but loses score.
    Raises:
        FileNotFoundError: nothing there. ValueError: every problem, one kind a line: missing, extra, doubled or
            damaged files, another size or pixel format, training ids, unknown ids, blank maps.
    """
    files = _files(path)
    expected = None
    if source:
        expected = list(cityscapes.list_test_images(source))
    maps, problems = _judge_names(files, expected)
    findings = collections.defaultdict(list)
    with progress_bar("check", len(maps), shown=progress) as bar:
        for name, found in zip(maps, map_ahead(lambda n: _judge(n, files[n]), maps, AHEAD), strict=True):
            for kind, detail in found:
                findings[kind].append(f"{name}{detail}")
            bar.update(1)
    notes = []
    if _NOTE in findings:
        notes.append(_line(_NOTE, findings.pop(_NOTE), len(maps)))
    problems += [_line(kind, names, len(maps)) for kind, names in findings.items()]
    if problems:
        raise InputError("\n".join([f"{path} cannot be submitted:", *problems, *notes]))
    return len(maps), notes


def _files(path):
    """Return {path inside: reference} of all files of a folder or zip, by name."""
    path = pathlib.Path(path)
    if not path.exists():
        raise MissingFileError(f"There is no {path} to check: give a folder of label maps, or a zip of them.")
    if path.is_dir():
        return {str(file.relative_to(path)): str(file) for file in sorted(path.rglob("*")) if file.is_file()}
    return {name: (str(path), name) for name in sorted(archive_names(str(path)))}


def _judge_names(files, expected):
    """Return (files that are label maps, problems of the names); `expected` None: what the cities must have."""
    of_image = collections.defaultdict(list)
    for file in files:
        match = _NAME.match(os.path.basename(file))
        of_image[match and match[1]].append(file)
    extra = of_image.pop(None, [])
    problems = []
    known = expected
    if expected is None:
        numbered = {city: cityscapes.TEST_CITIES[city] for city in cityscapes.NUMBERED_TEST_CITIES}
        known = [f"{city}_{i:06}_000019" for city, count in numbered.items() for i in range(count)]
        for city, count in cityscapes.TEST_CITIES.items():
            found = sum(name.startswith(f"{city}_") for name in of_image)
            if city not in numbered and found != count:
                problems.append(f"{found} images of {city} instead of {count} (--source would tell which)")
        known += [name for name in of_image if name.partition("_")[0] in set(cityscapes.TEST_CITIES) - set(numbered)]
    missing = [name for name in known if name not in of_image]
    extra += [file for name in set(of_image) - set(known) for file in of_image[name]]
    doubled = [" and ".join(of_image[name]) for name in known if len(of_image.get(name, ())) > 1]
    if missing:
        problems.append(f"{len(missing)} test images without a label map: {listed(missing)}")
    if extra:
        problems.append(f"{len(extra)} files that belong to no test image: {listed(sorted(extra))}")
    if doubled:
        problems.append(f"{len(doubled)} test images with several label maps: {listed(doubled)}")
    return [file for name in known for file in of_image.get(name, ())], problems


def _judge(name, reference):
    """Return [(kind of finding, detail)] of one label map."""
    try:
        data = read_bytes(reference, _MAX_BYTES)
    except InputError as error:
        return [("cannot be read", f" ({error})")]
    try:
        if data.startswith(b"\x89PNG") and len(data) > 25 and tuple(data[24:26]) != (8, 0):  # IHDR: bits, colour type
            kind = f"{data[24]}-bit {_COLOUR_TYPES.get(data[25], 'unknown')}"
            return [("are not 8-bit grey, the format of the labelIds", f" ({kind})")]
        if not data.startswith(b"\x89PNG"):
            return [("are damaged", " (not a PNG file)")]
        size = images.header(data, name, upright=False)[0]  # as the server reads it
        if size != SIZE:  # not decoded: a few kilobytes can claim any size
            return [(f"are not {size_text(SIZE)}", f" ({size_text(size)})")]
        ids = images.decode_label(data, name, upright=False)[0]
    except InputError as error:
        return [("are damaged", f" ({str(error).removeprefix(f'{name}: ')})")]
    present = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist()
    void = [NAMES[i] for i in present if i < len(NAMES) and i in _VOID]
    if len(present) == 1:
        return [("are blank", f" (all {present[0]})")]
    if 0 in present and set(present) <= set(_TRAINING_IDS):  # as training id 0 is road; as regular id "unlabeled"
        return [("look like training ids (0..18 and 255); the server wants regular ids, where road is 7", "")]
    found = []
    if unknown := [i for i in present if i >= len(NAMES)]:
        found.append((f"have ids that do not exist (regular ids are 0..{len(NAMES) - 1})", f" ({listed(unknown)})"))
    if void:
        found.append((_NOTE, f" ({', '.join(void)})"))
    return found


def _line(kind, names, total):
    return f"{len(names)} of {total} label maps {kind}: {listed(names)}"
