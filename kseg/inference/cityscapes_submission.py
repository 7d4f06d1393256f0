"""Label maps for Cityscapes' test server, written by a model (`cityscapes_submission_check`: what it takes)."""

import hashlib
import io
import os
import pathlib

import keras
from PIL import Image, PngImagePlugin

from kseg.data.datasets import cityscapes
from kseg.data.datasets.cityscapes import regular_id_table
from kseg.data.datasets.listing import read_bytes
from kseg.inference.cityscapes_submission_check import AHEAD, SIZE, listed
from kseg.inference.compatibility import check_classes
from kseg.inference.ensemble import AveragingModel
from kseg.inference.label_model import class_count, label_set_of
from kseg.inference.loading import as_model
from kseg.inference.looks import ONE_LOOK
from kseg.inference.model_paths import model_files
from kseg.inference.predictor import predictor
from kseg.io import images as codec
from kseg.io.errors import DamagedInputError, InputError
from kseg.io.files import LOCK, clear_unfinished, locked, write_atomic
from kseg.io.outputs import refuse_inputs
from kseg.io.parallel import map_ahead
from kseg.io.progress import progress_bar
from kseg.io.text import size_text

_SUFFIX = "_labelIds.png"
_MADE_BY = "kseg model"  # a text in each PNG: the digest of the weights, so that a resumed folder is of one model


def write_submission(model, source, output, progress=False, looks=ONE_LOOK):
    """Label the test images of Cityscapes for its server: CITY_SEQUENCE_FRAME_labelIds.png, regular ids, 2048x1024.

    Each label map is written completely or not at all, and says which weights made it. The same call continues after
    those already written.

    Args:
        model: of label set "train_ids" or "all_ids"; a keras.Model or what `kseg.load_model` takes.
        source: as in `data.datasets.cityscapes.list_test_images`. output: folder, made if missing; nothing else in it.
        progress: show a bar of images. looks: how often the model looks at each, `kseg.inference.looks.Looks`.
    Returns:
        list of pathlib.Path, one for each of the 1,525 images.
    Raises:
        ValueError: a model of other classes, an incomplete test set, an output with other files or label maps
            of other weights, one that is read or in use by another process (nothing is written); images that are
            damaged or of another size (all others are written).
        FloatingPointError: scores that are nan or infinite; it names the image, of which nothing is written.
    """
    images = cityscapes.list_test_images(source)
    output = pathlib.Path(output)
    paths = {name: output / f"{name}{_SUFFIX}" for name in images}
    read = {reference[0] if isinstance(reference, tuple) else reference for reference in images.values()}
    refuse_inputs(paths.values(), [*read, *model_files(model)])
    model = as_model(model, looks)
    table = _regular_ids(model)
    made_by = _digest(model, table)
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} must be a folder, but is a file.")
    with locked(output):
        todo = _missing(output, images, made_by)
        predict = predictor(model)
        problems = []
        with progress_bar("submission", len(images), len(images) - len(todo), shown=progress) as bar:
            for name, (pixels, problem) in zip(todo, map_ahead(lambda n: _read(images[n]), todo, AHEAD), strict=True):
                if problem:
                    problems.append(problem)
                    continue
                _write(paths[name], table[predict(pixels[None], *SIZE, [f"image {name}"])[0]], made_by)
                bar.update(1)
    if problems:
        written = len(images) - len(problems)
        raise DamagedInputError("\n".join([f"Only {written}/{len(images)} label maps are in {output}:", *problems]))
    return list(paths.values())


def _regular_ids(model):
    """Return the table from the model's ids to regular ids, by the label set that it carries, else by its outputs."""
    sets = cityscapes.info().label_sets
    names = {label_set.num_classes: label_set.name for label_set in sets.values()}
    known = label_set_of(model) or {"name": names.get(class_count(model))}
    label_set = sets.get(known["name"], sets["train_ids"])
    check_classes(model, label_set, "Cityscapes")
    return regular_id_table(label_set, class_count(model))


def _digest(model, table):
    digest = hashlib.sha256(table.tobytes())
    models = [model]
    if isinstance(model, AveragingModel):
        digest.update(model.reads.encode())  # a folder that was begun with other looks is another model's
        models = model.models
    for one in models:
        digest.update(getattr(one, "sha256", "").encode())  # of a file whose weights nobody sees
        for weight in one.weights:
            digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()


def _missing(output, images, made_by):
    """Return the names without a label map in the folder; ValueError if it holds anything else than this model's."""
    clear_unfinished(output, f"*{_SUFFIX}")  # of a run that was killed
    there = {path.name for path in output.iterdir()} - {LOCK}
    wanted = {f"{name}{_SUFFIX}": name for name in images}
    if extra := sorted(there - set(wanted)):
        raise InputError(f"{output} must be new or hold this submission alone, but holds {listed(extra)}.")
    for file in sorted(there):
        with Image.open(output / file) as image:
            if image.info.get(_MADE_BY) != made_by:
                raise InputError(f"{output / file} is of another model. Choose a new folder, or remove this one.")
    return [name for file, name in wanted.items() if file not in there]


def _read(reference):
    """Return (pixels, None) of a test image, or (None, problem)."""
    what = os.path.basename(reference[1] if isinstance(reference, tuple) else reference)
    try:
        pixels = codec.decode_image(read_bytes(reference), what)[0]
    except InputError as error:
        return None, str(error)
    if pixels.shape[:2] != SIZE:
        return None, f"{what}: the test images are {size_text(SIZE)}, this one is {size_text(pixels)}"
    return pixels, None


def _write(path, ids, made_by):
    text = PngImagePlugin.PngInfo()
    file = io.BytesIO()
    text.add_text(_MADE_BY, made_by)
    Image.fromarray(ids).save(file, "PNG", pnginfo=text)
    write_atomic(str(path), file.getvalue())
