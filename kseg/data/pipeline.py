"""tf.data over record folders: executes the rows of an epoch plan, or every image once in file-name order."""

import contextlib
import itertools

import tensorflow as tf

from kseg.data import codec, records
from kseg.data.augment import PADDING, ROW, Augmentation, epoch_plan, nearest, smooth_label
from kseg.data.examples import Examples
from kseg.data.info import IGNORE_LABEL
from kseg.errors import InputError

_ROW_SIGNATURE = {
    "record": tf.TensorSpec((None,), tf.int64),
    "scale": tf.TensorSpec((None,), tf.float32),
    "top": tf.TensorSpec((None,), tf.float32),
    "left": tf.TensorSpec((None,), tf.float32),
    "flip": tf.TensorSpec((None,), tf.bool),
    "color": tf.TensorSpec((None, 3, 4), tf.float32),
}


def load_dataset(
    data_dir,
    split,
    *,
    label_set=None,
    height=None,
    width=None,
    batch_size=1,
    training=False,
    seed=0,
    augmentation=None,
    label_space=None,
):
    """Read a record folder as a tf.data.Dataset of (uint8 [B, H, W, 3] RGB, uint8 [B, H, W] labels, 255 = ignore).

    Args:
        data_dir: folder written by scripts/prepare_data.py or by DeepLab's converter; may be a gs:// address.
        split: "train", "val", or another split of the folder.
        label_set: name of the label set that the labels are in; None is the dataset's training classes.
        height, width: resize the whole image (bilinear, antialiased) and label (nearest) to this many pixels; None
            keeps the images' sizes, which must then agree within a batch.
        batch_size: images of a batch. Evaluation (training=False) gives every image once, in file-name order, with a
            smaller last batch; nothing is dropped or padded.
        training: give the rows of `augment.epoch_plan`: shuffled whole batches, augmented. Each pass over the dataset
            is the next epoch of the plan, so `model.fit(dataset, epochs=n)` sees n different ones.
        seed: seed of order and augmentation. augmentation: augment.Augmentation; None changes nothing.
        label_space: what ids the labels of records without dataset.json hold: "train_ids" or "label_ids".
    Returns:
        tf.data.Dataset; the same bytes whatever the parallelism.
    Raises:
        ValueError: no finished record folder; unknown split or label set; sizes that differ within a batch. A corrupt
            record stops the iteration with an error that names shard and position (see `readable_errors`).
    """
    if (height is None) != (width is None) or batch_size < 1:
        raise InputError(
            f"Give both height and width or neither, and a batch of 1 or more, got {height}, {width} and {batch_size}."
        )
    source = RecordSource(data_dir, split, label_set=label_set, label_space=label_space)
    if training:
        epochs = itertools.count()

        def plans():
            yield epoch_plan(len(source), batch_size, seed, next(epochs), augmentation or Augmentation())

        size = (height, width) if height is not None else source.common_size()
        data = source.training_batches(plans, batch_size, *size)
        return data.apply(tf.data.experimental.assert_cardinality(len(source) // batch_size))
    return source.batches(batch_size, height, width)


class RecordSource(Examples):
    """Examples that tf.data reads: `read(i)` is `self[i]` inside a graph, decoded by TensorFlow."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._table = tf.constant(self.label_set.table)

    def batches(self, batch_size=1, height=None, width=None):
        """Give every example once, in file-name order, the last batch smaller; sizes as in `load_dataset`."""
        if height is None:
            self.check_batches(batch_size)
        data = tf.data.Dataset.range(len(self)).map(self.read, num_parallel_calls=tf.data.AUTOTUNE)
        if height is not None:
            data = data.map(
                lambda image, label: (_resize(image, height, width), nearest_label(label, height, width)),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
        count = -(-len(self) // batch_size)
        return data.batch(batch_size).apply(tf.data.experimental.assert_cardinality(count)).prefetch(2)

    def training_batches(self, plans, batch_size, height, width, crop=None, label_resize="nearest"):
        """Execute plans as a tf.data.Dataset; the parent's method says what comes."""
        smooth = label_resize == "smooth"
        read, resize = (self.read_raw, self._smooth_label) if smooth else (self.read, nearest_label)

        def rows():
            for plan in plans():
                for step in plan:
                    yield {name: step[name] for name in ROW.names}

        def example(row):
            return apply_row(*read(row["record"]), row, height, width, crop, resize)

        data = tf.data.Dataset.from_generator(rows, output_signature=_ROW_SIGNATURE).unbatch()
        data = data.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return data.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def read(self, index):
        """Return (image, label) of one record, decoded, labels in the label set; `index` is an int64 tensor."""
        image, label = self.read_raw(index)
        return image, self._training_ids(label)

    def read_raw(self, index):
        """Return the same with the label as the dataset's own ids."""
        image, label = tf.numpy_function(self._encoded, [index], (tf.string, tf.string), stateful=False)
        return decode_image(tf.ensure_shape(image, ())), self._decode_label(tf.ensure_shape(label, ()))

    def _encoded(self, index):
        """The bytes of image and label, checked by their headers: TensorFlow decodes whatever size they claim.

        An image that it would decode to other pixels than Pillow (records of other tools) is written anew.
        """
        name, image, label = records.encoded(self.split.read(int(index)))
        what = f"image of record {name}"
        sizes = (codec.header(data, self.split.names[index], upright=False)[0] for data in (image, label))
        self._check_size(index, *sizes)
        if not codec.is_plain(image, what, upright=False):
            image = codec.encode(codec.decode_image(image, what, upright=False)[0])
        return image, label

    def _training_ids(self, label):
        return tf.gather(self._table, tf.cast(label, tf.int32))

    def _smooth_label(self, label, height, width):
        # The parent's own function, so that both give the same ids: TensorFlow rounds otherwise here and there.
        resized = tf.numpy_function(smooth_label, [label, height, width], tf.uint8, stateful=False)
        return self._training_ids(tf.ensure_shape(resized, (None, None)))

    def _decode_label(self, encoded):
        if self.manifest.kseg_version:
            return tf.io.decode_png(encoded, channels=1)[..., 0]
        # Other tools may have stored palette images, whose indices TensorFlow would turn into grey levels.
        label = tf.numpy_function(_stored_label, [encoded], tf.uint8, stateful=False)
        return tf.ensure_shape(label, (None, None))

    @contextlib.contextmanager
    def readable_errors(self):
        """Turn TensorFlow's error about a record into one line that names shard and position (ValueError)."""
        try:
            yield
        except tf.errors.ResourceExhaustedError:
            raise  # out of memory: no record's fault
        except tf.errors.OpError as error:
            for index in range(len(self)):  # slow, but only after something broke
                self[index]
            raise error


def _stored_label(encoded):
    return codec.decode_label(encoded, "label", upright=False)[0]


def decode_image(encoded):
    """Decode PNG or JPEG bytes to uint8 (H, W, 3) RGB, JPEG with the accurate transform that Pillow uses too."""
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    image.set_shape((None, None, 3))
    return image


def decode_images(encoded):
    """Decode a batch of PNG or JPEG files of one size, strings (B,), to uint8 (B, H, W, 3) RGB, as they are stored.

    Raises:
        tf.errors.InvalidArgumentError: no image, another format, a CMYK JPEG, several sizes, more pixels than
            codec.MAX_PIXELS (the files' headers tell, before anything is decoded), a damaged file.
    """
    some = tf.debugging.Assert(tf.size(encoded) > 0, ["Send at least one encoded image."])
    with tf.control_dependencies([some]):
        shapes = tf.map_fn(_declared_shape, encoded, fn_output_signature=tf.TensorSpec((3,), tf.int64))
    height, width, _ = tf.unstack(shapes[0])
    one_size = tf.reduce_all(shapes[:, :2] == shapes[0, :2])
    checks = [
        tf.debugging.Assert(
            one_size, ["Images of a batch must be of one size, got (height, width)", shapes[:, :2]], 64
        ),
        tf.debugging.Assert(
            tf.reduce_all(shapes[:, 2] <= 3),
            ["A CMYK JPEG cannot be decoded here: send it as RGB. Channels:", shapes[:, 2]],
        ),
        tf.debugging.Assert(
            height * width <= codec.MAX_PIXELS,
            [f"Send images of at most {codec.MAX_PIXELS:,} pixels, got", shapes[0, :2]],
        ),
    ]
    with tf.control_dependencies(checks):
        return tf.map_fn(decode_image, encoded, fn_output_signature=tf.TensorSpec((None, None, 3), tf.uint8))


def _declared_shape(encoded):
    """Return the int64 (height, width, channels) that a PNG or JPEG claims; any PNG, decoded to RGB, has 3 channels."""
    is_png = tf.strings.substr(encoded, 0, 4) == b"\x89PNG"
    is_jpeg = tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff"
    length = tf.strings.length(encoded)
    known = (is_png | is_jpeg) & (length >= 24)  # IHDR, which tells a PNG's size, ends there
    known = tf.debugging.Assert(
        known, ["Send PNG or JPEG files, whole. Got something else, its length in bytes:", length]
    )

    def png_shape():
        size = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)  # IHDR: width, height
        return tf.concat([tf.cast(size[::-1], tf.int64), [3]], 0)

    with tf.control_dependencies([known]):
        shape = tf.cond(is_png, png_shape, lambda: tf.cast(tf.io.extract_jpeg_shape(encoded), tf.int64))
    return tf.ensure_shape(shape, (3,))


def nearest_label(label, height, width):
    """Resize a label map in TensorFlow as augment.nearest_label does."""
    size = tf.shape(label)
    rows = tf.gather(label, nearest(size[0], height, tf.range))
    return tf.gather(rows, nearest(size[1], width, tf.range), axis=1)


def apply_row(image, label, row, height, width, crop=None, resize_label=nearest_label):
    """Execute a plan row in TensorFlow; augment.apply_row is its twin in NumPy and says what comes out."""
    result_height, result_width = crop or (height, width)
    scaled_height, top, rows, above = _placement(height, row["scale"], row["top"], result_height)
    scaled_width, left, columns, before = _placement(width, row["scale"], row["left"], result_width)
    image = _resize_float(image, scaled_height, scaled_width)[top : top + rows, left : left + columns]
    label = resize_label(label, scaled_height, scaled_width)[top : top + rows, left : left + columns]
    if row["flip"]:
        image, label = image[:, ::-1], label[:, ::-1]
    image = tf.round(image)
    image = tf.linalg.matmul(tf.reshape(image, (-1, 3)), row["color"][:, :3], transpose_b=True)
    image = tf.reshape(image + row["color"][:, 3], (rows, columns, 3))
    image = tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)
    padding = [(above, result_height - rows - above), (before, result_width - columns - before)]
    shift = tf.constant(PADDING, tf.uint8)  # tf.pad takes one value: pad with 0 around a shifted image (uint8 wraps)
    image = tf.pad(image - shift, [*padding, (0, 0)]) + shift
    label = tf.pad(label, padding, constant_values=IGNORE_LABEL)
    size = (result_height, result_width)
    return tf.ensure_shape(image, (*size, 3)), tf.ensure_shape(label, size)


def _placement(size, scale, share, result):
    scaled = tf.maximum(1, tf.cast(tf.cast(size, tf.float32) * scale + 0.5, tf.int32))
    offset = tf.cast(share * tf.cast(tf.abs(scaled - result) + 1, tf.float32), tf.int32)
    larger = scaled >= result
    return scaled, tf.where(larger, offset, 0), tf.minimum(scaled, result), tf.where(larger, 0, offset)


def _resize_float(image, height, width):
    return tf.image.resize(image, (height, width), antialias=True)


def _resize(image, height, width):
    return tf.cast(tf.round(_resize_float(image, height, width)), tf.uint8)
