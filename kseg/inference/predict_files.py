"""Label maps of files and of splits. What can be refused is refused before anything imports Keras."""

import collections.abc
import os
import pathlib

from kseg.data.pipeline.examples import Examples
from kseg.inference import videos
from kseg.inference.input_files import check_kinds, is_video
from kseg.inference.label_map_files import USUAL, check_inside, check_replaceable, output_paths
from kseg.inference.looks import ONE_LOOK, ONE_MODEL
from kseg.inference.model_checks import check_scales
from kseg.inference.model_paths import described_models, model_files
from kseg.inference.outside.file_kinds import SEEDS
from kseg.inference.read_image import check_image, most_pixels, read_image
from kseg.io.errors import InputError
from kseg.io.files import checked_path, is_url
from kseg.io.outputs import refuse_inputs
from kseg.runs.workdir import FLAGS_FILE


def predict_files(model, paths, output, **options):
    """Label image and video files and write NAME.png (the dataset's ids) and color/NAME.png for each into a folder.

    classes.json beside them says which ids they are, with names and colours. Of a video the label maps are NAME.mkv
    (FFV1, lossless, one channel) and color/NAME.mp4. An id without a colour (a model of more outputs than classes) is
    white. Label maps that kseg wrote there before are replaced, unless they were changed since. Any other file with
    such a name is not, and no video.

    Args:
        model: as in `predict`. paths: files whose names differ in more than extension, folder and case.
        output: folder, made if missing. options: as in `write_label_maps`.
    Returns:
        list of the label maps' paths.
    Raises:
        ValueError: two images of one name; a file that is missing; an output that is an image, of the model, not kseg's
            or changed since; a model without class colours (nothing is written then).
        DamagedInputError: files that are damaged; all others are written.
        FloatingPointError: scores that are nan or infinite; it names the image.
    """
    if isinstance(paths, (str, os.PathLike)) or not isinstance(paths, collections.abc.Iterable):
        raise InputError(f"paths must be a list of files, got {paths!r}.")
    paths = [pathlib.Path(checked_path(path, "image")) for path in paths]
    return write_label_maps(model, [(path, path.stem) for path in paths], output, **options)


def write_label_maps(model, images, output, *, folders=(), left_out=(), wanted=USUAL, looks=ONE_LOOK, **options):
    """Do what `predict_files` does, under given names.

    Args:
        images: list of (path, name): NAME.png and color/NAME.png are written, and a name may hold folders ("seq1/0").
        folders: that were walked for them; no output may lie in one. left_out: lines on files in them that are neither
            images nor videos, which count as damaged. wanted: which files are written, with which ids.
        looks: Looks. model, output: as in `predict_files`. options: batch_size and progress of `labelling.Labelling`.
    Returns:
        list of the label maps' paths (of the first kind of file that is wanted).
    Raises:
        As `predict_files`.
    """
    paths = [path for path, _ in images]
    written = _checked_outputs(images, output, wanted, [*paths, *folders, *model_files(model)])
    for path in paths:
        check_image(path)
    check_kinds(paths)
    if clip := next(filter(is_video, paths), None):
        videos.check_installed(clip)
    _check_model(model, wanted, looks)
    from kseg.inference.labelling import Labelling

    labelling = Labelling(model, wanted=wanted, looks=looks, **options)
    most = most_pixels(looks)
    labelling.run(images, written, pathlib.Path(output), lambda path: read_image(path, most=most), left_out)
    return [files[wanted.kinds[0]] for files in written]


def write_split_label_maps(
    model, data_dir, split, output, *, label_space=None, wanted=USUAL, looks=ONE_LOOK, **options
):
    """Do what `predict_files` does for every image of a split of a record folder.

    OUTPUT/SPLIT/NAME.png and OUTPUT/color/SPLIT/NAME.png are written, so that splits with equal names do not meet.

    Args:
        model, output: as in `predict_files`. data_dir, split, label_space: as in `kseg.load_dataset`. wanted: as in
            `write_label_maps`. looks: Looks. options: batch_size and progress of `labelling.Labelling`.
    Returns:
        list of the label maps' paths.
    Raises:
        ValueError: no finished record folder, an unknown split, a name that would leave the output, an output in the
            record folder; and as `predict_files`.
    """
    source = Examples(data_dir, split, label_space=label_space)
    numbers = {f"image {name} of split {split}, record {i}": i for i, name in enumerate(source.split.names)}
    images = list(zip(numbers, (f"{split}/{name}" for name in source.split.names), strict=True))
    for text, name in images:
        check_inside(name, f"{text} of {data_dir}")
    folders = [] if is_url(data_dir) else [data_dir]
    _check_model(model, wanted, looks)
    written = _checked_outputs(images, output, wanted, [*folders, *model_files(model)])
    from kseg.inference.labelling import Labelling

    labelling = Labelling(model, wanted=wanted, looks=looks, **options)
    labelling.run(images, written, pathlib.Path(output), lambda text: source[numbers[text]][0])
    return [files[wanted.kinds[0]] for files in written]


def _check_model(model, wanted, looks):
    """Raise InputError for what the files of a model show that it cannot give: the disagreement of one, scales."""
    described = described_models(model)
    if "disagreement" in wanted.kinds and isinstance(model, (str, os.PathLike)) and described[0].kind != SEEDS:
        raise InputError(ONE_MODEL)
    check_scales(described, looks)


def _checked_outputs(images, output, wanted, inputs):
    """Return {kind: path} of the files for each (image, name); InputError if one may not be written."""
    output = pathlib.Path(checked_path(output, "output"))
    if (output / FLAGS_FILE).exists():
        raise InputError(f"Runs must stay as they are, but the output {output} is one. Choose another output.")
    written = output_paths(images, output, wanted.kinds)
    pictures = [picture for files in written for picture in files.values()]
    refuse_inputs(pictures, inputs)
    for picture in pictures:
        check_replaceable(picture)
    return written
