"""One pass over images and labels, from which scores, report and comparison are taken: each is predicted once."""

from typing import NamedTuple

import numpy as np

from kseg.inference.finite import image_names
from kseg.io.errors import InputError
from kseg.io.progress import progress_bar

_LEAST_RESIZE = 0.05  # nobody makes images smaller by less: a label that differs less is another's, or was cropped


class Scene(NamedTuple):
    """One image of a pass.

    index: its number. image: uint8 (h, w, 3). truth: training ids (H, W). predictions: class ids (H, W), one of each
    model. label: the ids as stored, and instances: uint16 instance ids, both (H, W); None if there are none.
    confidences: probabilities of the predictions, float32 (H, W), one of each model; none if they were not asked for.
    """

    index: int
    image: np.ndarray
    truth: np.ndarray
    predictions: tuple[np.ndarray, ...]
    label: np.ndarray | None = None
    instances: np.ndarray | None = None
    confidences: tuple = ()


def split_pass(source, predictors, batch_size=1, *, confident=False, progress=False, title="evaluate"):
    """Read every record of a split once, predict it once with each model, and give its Scene with all that it holds.

    Args:
        source: of `kseg.data.pipeline.load.open_split`. predictors: of `kseg.inference.predictor.predictor`.
        batch_size: images of a batch. confident: the predictors give confidence too (`confident_predictor`).
        progress: show a bar under the title.
    """
    table = source.label_set.table
    batches = ((images, table[labels], labels, instances) for images, labels, instances in source.scenes(batch_size))
    names = source.split.names
    return batches_pass(
        batches,
        predictors,
        names=names,
        expected=len(source),
        confident=confident,
        progress=progress,
        title=title,
    )


def batches_pass(
    batches,
    predictors,
    *,
    names=(),
    expected=None,
    confident=False,
    progress=False,
    title="evaluate",
):
    """Predict every image of an iterable once with each model, and give its Scene.

    Args:
        batches: of (image, truth), single or batched, or (images, truths, labels, instances), batched. predictors: of
            `kseg.inference.predictor.predictor`. names: of the images, where they have any, for errors. expected: how
            many images come, where that is known. confident, progress, title: as in `split_pass`.
    Raises:
        ValueError: something that is not a pair. FloatingPointError: scores that are nan or infinite; it names the
        image.
    """
    index = 0
    with progress_bar(title, expected, shown=progress, warm=True) as bar:
        for batch in batches:
            images, truths, *stored = _checked_batch(index, *batch)
            count = len(images)
            called = image_names(names, index, count)
            predictions = [predict(images, *truths.shape[1:], called) for predict in predictors]
            confidences = [()] * count
            if confident:
                predictions, given = zip(*predictions, strict=True)
                confidences = zip(*given, strict=True)
            predictions = zip(*predictions, strict=True)
            for *parts, sure in zip(images, truths, predictions, *stored, confidences, strict=True):
                yield Scene(index, *parts, confidences=sure)
                index += 1
            bar.update(count)


def _checked_batch(index, images, truths, *stored):
    """Return a batch as arrays of a leading axis; index: of its first image."""
    images = np.asarray(images)
    truths = np.asarray(truths)
    if images.ndim == 3:
        images = images[None]
        truths = truths[None]
    if images.ndim != 4 or images.shape[3] != 3 or truths.ndim != 3 or len(images) != len(truths) or not images.size:
        raise InputError(
            f"Data must be pairs of images (B, H, W, 3) and labels (B, H, W), got {images.shape} and {truths.shape} "
            f"from image {index} (counted from 0) on."
        )
    if images.dtype != np.uint8:
        raise InputError(
            f"Images must be uint8 RGB (models normalise inside), got {images.dtype} from image {index} (counted from "
            "0) on."
        )
    (height, width), (rows, columns) = images.shape[1:3], truths.shape[1:]
    turned = abs(rows * width - columns * height) > max(height, width, rows, columns)  # more than rounding
    cut = (height, width) != (rows, columns) and max(abs(rows / height - 1), abs(columns / width - 1)) < _LEAST_RESIZE
    if turned or cut:
        raise InputError(
            f"A label must have its image's shape, or that of the image before it was made smaller, got "
            f"{width}x{height} and {columns}x{rows} for image {index} (counted from 0). Is one of the two rotated "
            "(EXIF) or cropped?"
        )
    return images, truths, *stored
