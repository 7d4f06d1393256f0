"""The protocol "standard": every image once, at the label's own resolution, into one confusion matrix."""

from kseg.data.groups import groups_of
from kseg.data.pipeline.examples import Examples
from kseg.evaluation.one_pass import batches_pass
from kseg.inference.label_model import class_names
from kseg.inference.predictor import predictor
from kseg.io.errors import InputError
from kseg.metrics.scores import ScoreCounts


def evaluate_standard(model, data, *, batch_size=1, progress=False, group_by=None):
    """Score a model on every image: one confusion matrix of the classes; void is ignored.

    A prediction outside the classes on a valid pixel is a false negative.

    Args:
        model: keras.Model that gives logits. data: of `kseg.data.pipeline.load.open_split`, or an iterable of (image,
            label), single or batched. batch_size: images of a batch of a split. progress: show a bar of images.
        group_by: score the groups of a split too, as in `kseg.data.groups.groups_of`; None for none.
    Returns:
        kseg.metrics.Scores
    Raises:
        ValueError: something that is not a pair, no image at all; groups of an iterable, or that the names do not show.
        FloatingPointError: scores that are nan or infinite.
    """
    predict = predictor(model)
    if isinstance(data, Examples):
        return score_batches(
            predict,
            data.batches(batch_size),
            data.label_set.classes,
            len(data),
            progress,
            names=data.split.names,
            groups=split_groups(data, group_by),
            split=data.split.name,
        )
    if group_by is not None:
        raise InputError("group_by needs a record folder: pairs have no names that show their groups.")
    return score_batches(predict, data, class_names(model), None, progress)


def split_groups(data, group_by):
    """Return the Groups of the images of a split (`kseg.data.groups.groups_of`), None where group_by is None."""
    return None if group_by is None else groups_of(data.split.names, group_by, data.manifest.drive)


def score_batches(predict, batches, classes, expected=None, progress=False, *, names=(), groups=None, split=""):
    """Score a predictor (`kseg.inference.predictor.predictor`) on an iterable of (image, label), single or batched.

    Args:
        classes: their names. expected: how many images must come, where that is known. progress: show a bar.
        names: of the images, where they have any, for errors. groups, split: as in `kseg.metrics.scores.ScoreCounts`.
    Returns:
        kseg.metrics.Scores
    Raises:
        ValueError: something that is not a pair, no image at all, or not the expected number.
        FloatingPointError: scores that are nan or infinite.
    """
    counts = ScoreCounts(classes, groups, split)
    for scene in batches_pass(batches, [predict], names=names, expected=expected, progress=progress):
        counts.add(scene.truth, scene.predictions[0])
    return counts.scores(expected)
