"""The protocol "cityscapes": predictions as regular ids at the labels' size, counted as the benchmark does."""

from kseg.data.datasets.cityscapes import check_regular_ids, regular_id_table
from kseg.evaluation.one_pass import split_pass
from kseg.inference.label_model import class_count
from kseg.inference.predictor import predictor
from kseg.io.errors import InputError
from kseg.metrics.cityscapes_scores import CityscapesCounts


def evaluate_cityscapes(model, data, *, batch_size=1, progress=False):
    """Score a model on every image of a split of Cityscapes records, as cityscapesScripts scores its files.

    Memory does not grow with the number of images; no file is written.

    Args:
        model: of the classes of data.label_set ("train_ids" or "all_ids"); each becomes its regular id, an output
            beyond the classes "unlabeled".
        data: of `kseg.data.pipeline.load.open_split`. batch_size: images of a batch. progress: show a bar of images.
    Returns:
        kseg.metrics.cityscapes_scores.CityscapesScores
    Raises:
        ValueError: other data than Cityscapes with its own ids, a label set that merges ids, no instance map.
        FloatingPointError: scores that are nan or infinite; it names the image.
    """
    counts = SceneCounts(data, class_count(model))
    for scene in split_pass(data, [predictor(model)], batch_size, progress=progress):
        counts.add(scene)
    return counts.scores()


class SceneCounts:
    """Counts the scenes of a pass over a split (`one_pass.split_pass`): `add` each, then take `scores`.

    Args:
        source: of `open_split`. outputs: of the model.
    """

    def __init__(self, source, outputs):
        self._source = source
        self._table = regular_ids(source, outputs)
        self._counts = CityscapesCounts()

    def add(self, scene):
        """Count the first model's prediction."""
        place = self._source.split.place(scene.index)
        if scene.instances is None:
            raise InputError(
                f"{place} has no instance map. Prepare the records again from a source that has the instanceIds beside "
                "the labelIds."
            )
        try:
            self._counts.add(self._table[scene.predictions[0]], scene.label, scene.instances)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error

    def scores(self):
        """Return CityscapesScores; ValueError unless every image of the split was counted."""
        return self._counts.scores(len(self._source))


def regular_ids(source, outputs):
    """Return the table uint8 (256 or more,) from training ids of a source's label set to Cityscapes' regular ids.

    Raises:
        ValueError: no Cityscapes, records that hold training ids only, or a class that several ids share.
    """
    check_regular_ids(source.manifest)
    return regular_id_table(source.label_set, outputs)
