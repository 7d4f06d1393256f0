"""The protocol "standard": every image once, at the label's own resolution, into one confusion matrix."""

from kseg.data.pipeline.examples import Examples
from kseg.evaluation.one_pass import batches_pass
from kseg.inference.compatibility import class_names
from kseg.inference.predict import predictor
from kseg.metrics.scores import ScoreCounts


def evaluate_standard(model, data, *, batch_size=1, progress=False):
    """Score a model on every image: one confusion matrix of the classes; void is ignored.

    A prediction outside the classes on a valid pixel is a false negative.

    Args:
        model: keras.Model that gives logits. data: of `kseg.data.pipeline.load.open_split`, or an iterable of (image,
            label), single or batched. batch_size: images of a batch of a split. progress: show a bar of images.
    Returns:
        kseg.metrics.Scores
    Raises:
        ValueError: something that is not a pair, no image at all. FloatingPointError: scores that are nan or infinite.
    """
    predict = predictor(model)
    if isinstance(data, Examples):
        batches = data.batches(batch_size)
        return score_batches(predict, batches, data.label_set.classes, len(data), progress, data.split.names)
    return score_batches(predict, data, class_names(model), None, progress)


def score_batches(predict, batches, classes, expected=None, progress=False, names=()):
    """Score a predictor (`kseg.inference.predict.predictor`) on an iterable of (image, label), single or batched.

    Args:
        classes: their names. expected: how many images must come, where that is known. progress: show a bar.
        names: of the images, where they have any, for errors.
    Returns:
        kseg.metrics.Scores
    Raises:
        ValueError: something that is not a pair, no image at all, or not the expected number.
        FloatingPointError: scores that are nan or infinite.
    """
    counts = ScoreCounts(classes)
    for scene in batches_pass(batches, [predict], names=names, expected=expected, progress=progress):
        counts.add(scene.truth, scene.predictions[0])
    return counts.scores(expected)
