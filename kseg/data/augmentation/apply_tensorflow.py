"""A row of the plan, executed by TensorFlow in tf.data."""

import tensorflow as tf

from kseg.data.augmentation.apply_numpy import PADDING, nearest
from kseg.data.labels import IGNORE_LABEL


def nearest_label(label, height, width):
    """Resize a label map in TensorFlow as apply_numpy.nearest_label does."""
    size = tf.shape(label)
    rows = tf.gather(label, nearest(size[0], height, tf.range))
    return tf.gather(rows, nearest(size[1], width, tf.range), axis=1)


def apply_row(image, label, row, height, width, crop=None, resize_label=nearest_label):
    """Execute a plan row in TensorFlow; apply_numpy.apply_row is its twin in NumPy and says what comes out."""
    target_height, target_width = crop or (height, width)
    scaled_height, top, rows, above = _placement(height, row["scale"], row["top"], target_height)
    scaled_width, left, columns, before = _placement(width, row["scale"], row["left"], target_width)
    image = _resize_float(image, scaled_height, scaled_width)[top : top + rows, left : left + columns]
    label = resize_label(label, scaled_height, scaled_width)[top : top + rows, left : left + columns]
    if row["flip"]:
        image = image[:, ::-1]
        label = label[:, ::-1]
    image = tf.round(image)
    image = tf.linalg.matmul(tf.reshape(image, (-1, 3)), row["color"][:, :3], transpose_b=True)
    image = tf.reshape(image + row["color"][:, 3], (rows, columns, 3))
    image = tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)
    padding = [(above, target_height - rows - above), (before, target_width - columns - before)]
    shift = tf.constant(PADDING, tf.uint8)  # tf.pad takes one value: pad with 0 around a shifted image (uint8 wraps)
    image = tf.pad(image - shift, [*padding, (0, 0)]) + shift
    label = tf.pad(label, padding, constant_values=IGNORE_LABEL)
    size = (target_height, target_width)
    return tf.ensure_shape(image, (*size, 3)), tf.ensure_shape(label, size)


def _placement(size, scale, share, target):
    scaled = tf.maximum(1, tf.cast(tf.cast(size, tf.float32) * scale + 0.5, tf.int32))
    offset = tf.cast(share * tf.cast(tf.abs(scaled - target) + 1, tf.float32), tf.int32)
    larger = scaled >= target
    return scaled, tf.where(larger, offset, 0), tf.minimum(scaled, target), tf.where(larger, 0, offset)


def _resize_float(image, height, width):
    return tf.image.resize(image, (height, width), antialias=True)
