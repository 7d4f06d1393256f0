"""The examples of one split of a record folder, in a label set: what every backend reads, without TensorFlow."""

import contextlib
import itertools

import numpy as np

from kseg.data.augmentation.apply_numpy import apply_row, nearest_label, smooth_label
from kseg.data.records import manifest
from kseg.io import tfrecord
from kseg.io.errors import InputError, check_whole
from kseg.io.images import decode_instances
from kseg.io.parallel import map_ahead

INSTANCES = "image/segmentation/instance/encoded"


class Examples:
    """Random access to (image, label): `examples[i]` is the i-th in file-name order, uint8 RGB and training ids.

    Args:
        data_dir, label_space: as in `records.load_manifest`. split: "train", "val", ...
        label_set: name of the label set; None is the dataset's training classes.
    Raises:
        ValueError: no finished record folder; unknown split or label set; on reading, a corrupt record.
    """

    def __init__(self, data_dir, split, *, label_set=None, label_space=None):
        self.manifest = manifest.load_manifest(data_dir, label_space=label_space)
        self.split = self.manifest.split(split)
        self.label_set = self.manifest.info.label_set(label_set)

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        image, label = self.raw(index)
        return image, self.label_set.table[label]

    def raw(self, index):
        """Return (image, label) of one record, the label as the dataset's own ids."""
        return self._decoded(index, self.split.read(index))  # a broken record names its place by itself

    def _decoded(self, index, serialized):
        try:
            _, image, label = manifest.decode(serialized)
            self._check_size(index, image.shape[:2], label.shape)
        except (InputError, OSError) as error:
            raise InputError(f"{self.split.place(index)} does not decode: {error}") from error
        return image, label

    def _check_size(self, index, image, label):
        listed = self.split.heights[index], self.split.widths[index]
        if not tuple(image) == tuple(label) == listed:
            shown = ", ".join(f"{w}x{h}" for h, w in (image, label, listed))
            raise InputError(f"image, label and the records' listing must have the same size, got {shown}")

    def scene(self, index):
        """Return (image, raw label, uint16 instance map (H, W)) of one record; None if it has no such map."""
        serialized = self.split.read(index)
        image, label = self._decoded(index, serialized)
        encoded = tfrecord.parse_example(serialized).get(INSTANCES)
        if encoded is None:
            return image, label, None
        return image, label, decode_instances(encoded, f"Instance map of record {self.split.names[index]}")

    def scenes(self, batch_size=1):
        """Give every scene once, in file-name order, as stacked (images, raw labels) and a list of instance maps."""
        self.check_batches(batch_size)
        ahead = map_ahead(self.scene, range(len(self)), ahead=2 * batch_size + 2)
        while batch := list(itertools.islice(ahead, batch_size)):
            images, labels, instances = zip(*batch, strict=True)
            yield np.stack(images), np.stack(labels), instances

    def common_size(self):
        """Return the (height, width) of all images, or raise ValueError if they have several."""
        return self.split.common_size()

    def check_batches(self, batch_size):
        """Raise ValueError if a batch of consecutive images would hold different sizes, or none at all."""
        check_whole("batch_size", batch_size, 1)
        if batch_size == 1:
            return
        for start in range(0, len(self), batch_size):
            batch = slice(start, start + batch_size)
            if np.ptp(self.split.heights[batch]) or np.ptp(self.split.widths[batch]):
                raise InputError(
                    f"Images {self.split.names[batch][0]} and following differ in size and cannot share a batch of "
                    f"{batch_size}. Give height and width, or batch_size=1."
                )

    def pixel_counts(self):
        """Return how many pixels each class of the label set has in the split: int64 (classes,)."""
        if not self.split.pixel_counts:
            raise InputError(
                "These records have no dataset.json and so no pixel counts. Give the class weights as numbers: 1,2,0.5."
            )
        counts = np.zeros(256, np.int64)
        for raw_id, pixels in self.split.pixel_counts.items():
            counts[self.label_set.table[raw_id]] += pixels
        return counts[: self.label_set.num_classes]

    def batches(self, batch_size=1):
        """Give every example once, in file-name order, as (images, labels) arrays; the last batch is smaller."""
        self.check_batches(batch_size)
        return _stacked(map_ahead(self.__getitem__, range(len(self))), batch_size)

    def training_batches(self, plans, batch_size, resize):
        """Execute plans: `plans()` yields arrays of augment.ROW (steps, batch_size), each step becomes a batch.

        `resize`: kseg.settings.Resize.
        """
        read = self.__getitem__
        resize_label = nearest_label
        if resize.label_resize == "smooth":
            read = self.raw
            resize_label = self._smooth_label

        def example(row):
            return apply_row(*read(row["record"]), row, resize.height, resize.width, resize.crop, resize_label)

        rows = (row for plan in plans() for step in plan for row in step)
        return _stacked(map_ahead(example, rows), batch_size)

    def _smooth_label(self, label, height, width):
        return self.label_set.table[smooth_label(label, height, width)]

    def readable_errors(self):
        """A context in which an error of reading is one clear line; here it already is."""
        return contextlib.nullcontext()


def _stacked(examples, batch_size):
    while batch := list(itertools.islice(examples, batch_size)):
        yield tuple(np.stack(part) for part in zip(*batch, strict=True))
