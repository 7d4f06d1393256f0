"""A split of a record folder, as a tf.data.Dataset or as the examples that training and evaluation read."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import keras

from kseg.data.augmentation.plan import epoch_plan
from kseg.data.pipeline.examples import Examples
from kseg.io.errors import InputError, check_whole
from kseg.io.files import StrPath
from kseg.settings import Augmentation, Resize

if TYPE_CHECKING:
    import tensorflow as tf


def load_dataset(
    data_dir: StrPath,
    split: str,
    *,
    label_set: str | None = None,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 1,
    training: bool = False,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    label_space: str | None = None,
) -> tf.data.Dataset:
    """Read a record folder as a tf.data.Dataset of (uint8 [B, H, W, 3] RGB, uint8 [B, H, W] labels, 255 = ignore).

    Args:
        data_dir: folder written by kseg prepare or by DeepLab's converter; may be a gs:// address.
        split: "train", "val", or another split of the folder.
        label_set: name of the label set that the labels are in; None is the dataset's training classes.
        height, width: resize the whole image (bilinear, antialiased) and label (nearest) to this many pixels; None
            keeps the images' sizes, which must then agree within a batch.
        batch_size: images of a batch. Evaluation (training=False) gives every image once, in file-name order, with a
            smaller last batch; nothing is dropped or padded.
        training: give the rows of `epoch_plan`: shuffled full batches, augmented. Each pass over the dataset
            is the next epoch of the plan, so `model.fit(dataset, epochs=n)` sees n different ones.
        seed: seed of order and augmentation. augmentation: kseg.settings.Augmentation; None changes nothing. Both are
            for training=True.
        label_space: which ids the labels hold in records without dataset.json: "train_ids" or "label_ids".
    Returns:
        tf.data.Dataset; the same bytes whatever the parallelism.
    Raises:
        ValueError: no finished record folder; unknown split or label set; sizes that differ within a batch. A corrupt
            record stops the iteration with an error that names shard and position (see `readable_errors`).
    """
    import tensorflow as tf

    from kseg.data.pipeline.examples_tensorflow import RecordSource

    if (height is None) != (width is None):
        raise InputError(f"Give both height and width or neither, got {height} and {width}.")
    for name, value, least in (
        ("height", height, 1),
        ("width", width, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
    ):
        if value is not None:
            check_whole(name, value, least)
    if not isinstance(augmentation, (Augmentation, type(None))):
        raise InputError(f"augmentation must be a kseg.settings.Augmentation or None, got {augmentation!r}.")
    source = RecordSource(data_dir, split, label_set=label_set, label_space=label_space)
    if not training and (augmentation is not None or seed):
        given = f"augmentation={augmentation!r}" if augmentation is not None else f"seed={seed!r}"
        raise InputError(f"{given} has no effect with training=False, which gives every image as it is. Leave it out.")
    if training:
        if batch_size > len(source):
            raise InputError(
                f"With training=True batches are whole: batch_size must be at most the {len(source)} images of split "
                f"{split!r}, got {batch_size}."
            )
        epochs = itertools.count()

        def plans():
            yield epoch_plan(len(source), batch_size, seed, next(epochs), augmentation or Augmentation())

        size = (height, width) if height is not None else source.common_size()
        data = source.training_batches(plans, batch_size, Resize(*size))
        return data.apply(tf.data.experimental.assert_cardinality(len(source) // batch_size))
    return source.batches(batch_size, height, width)


def open_split(data_dir: StrPath, split: str, label_set: str | None = None, label_space: str | None = None) -> Examples:
    """Return the examples of a split, read by tf.data where the backend is TensorFlow, else by NumPy and Pillow."""
    reader = Examples
    if keras.backend.backend() == "tensorflow":
        from kseg.data.pipeline.examples_tensorflow import RecordSource as reader
    return reader(data_dir, split, label_set=label_set, label_space=label_space or None)
