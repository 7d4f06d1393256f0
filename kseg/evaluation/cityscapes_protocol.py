"""The protocol "cityscapes": predictions as regular ids at the labels' size, counted as the benchmark does."""

from kseg.data.datasets.cityscapes import regular_id_table
from kseg.inference.compatibility import class_count
from kseg.inference.finite import image_names
from kseg.inference.predict import labeller
from kseg.io.errors import InputError
from kseg.io.progress import progress_bar
from kseg.metrics.cityscapes_scores import CityscapesCounts


def evaluate_cityscapes(model, source, batch_size=1, progress=False):
    """Score a model on every image of a split of Cityscapes records, as cityscapesScripts scores its files.

    Memory does not grow with the number of images; no file is written.

    Args:
        model: of the classes of source.label_set ("train_ids" or "all_ids"); each becomes its regular id, an output
            beyond the classes "unlabeled".
        source: of `kseg.data.pipeline.load.open_split`. batch_size: images of a batch. progress: show a bar of images.
    Returns:
        kseg.metrics.cityscapes_scores.CityscapesScores
    Raises:
        ValueError: other data than Cityscapes with its own ids, a label set that merges ids, no instance map.
        FloatingPointError: scores that are nan or infinite; it names the image.
    """
    table, label, counts = regular_ids(source, class_count(model)), labeller(model), CityscapesCounts()
    with progress_bar("evaluate", len(source), shown=progress) as bar:
        for images, labels, instances in source.scenes(batch_size):
            names = image_names(source.split.names, counts.images, len(images))
            predicted = table[label(images, *labels.shape[1:], names)]
            for scene in zip(predicted, labels, instances, strict=True):
                try:
                    counts.add(*scene)
                except InputError as error:
                    raise InputError(f"{source.split.place(counts.images)}: {error}") from error
            bar.update(len(images))
    return counts.scores(len(source))


def regular_ids(source, outputs):
    """Return the table uint8 (256 or more,) from training ids of a source's label set to Cityscapes' regular ids.

    Raises:
        ValueError: no Cityscapes, records that hold training ids only, or a class that several ids share.
    """
    manifest = source.manifest
    if manifest.info.name != "cityscapes" or manifest.label_space == "cityscapes/train_ids":
        raise InputError(
            f'Protocol "cityscapes" needs records of Cityscapes that hold its regular ids, {manifest.data_dir} holds '
            f"{manifest.label_space}."
        )
    return regular_id_table(source.label_set, outputs)
