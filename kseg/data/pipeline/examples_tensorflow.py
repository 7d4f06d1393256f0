"""tf.data over record folders: executes the rows of an epoch plan, or every image once in file-name order."""

import contextlib

import tensorflow as tf

from kseg.data.augmentation.apply_numpy import smooth_label
from kseg.data.augmentation.apply_tensorflow import _resize_float, apply_row, nearest_label
from kseg.data.augmentation.plan import ROW
from kseg.data.pipeline.examples import Examples
from kseg.data.records import manifest
from kseg.io import images

_ROW_SIGNATURE = {name: tf.TensorSpec((None, *ROW[name].shape), ROW[name].base) for name in ROW.names}


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

    def training_batches(self, plans, batch_size, resize):
        """Execute plans as a tf.data.Dataset; the parent's method says what comes."""
        read = self.read
        resize_label = nearest_label
        if resize.label_resize == "smooth":
            read = self.read_raw
            resize_label = self._smooth_label

        def rows():
            for plan in plans():
                for step in plan:
                    yield {name: step[name] for name in ROW.names}

        def example(row):
            return apply_row(*read(row["record"]), row, resize.height, resize.width, resize.crop, resize_label)

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
        """The bytes of image and label. Their headers are checked first: TensorFlow decodes whatever size they claim.

        An image that TensorFlow would decode to other pixels than Pillow (records of other tools) is encoded again.
        """
        name, image, label = manifest.encoded(self.split.read(int(index)))
        what = f"image of record {name}"
        sizes = (images.header(data, self.split.names[index], upright=False)[0] for data in (image, label))
        self._check_size(index, *sizes)
        if not images.is_plain(image, what, upright=False):
            image = images.encode(images.decode_image(image, what, upright=False)[0])
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
    return images.decode_label(encoded, "label", upright=False)[0]


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
            height * width <= images.MAX_PIXELS,
            [f"Send images of at most {images.MAX_PIXELS:,} pixels, got", shapes[0, :2]],
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


def _resize(image, height, width):
    return tf.cast(tf.round(_resize_float(image, height, width)), tf.uint8)
