"""Faults of exports, as they happen: each changes what the graph of the export computes, and nothing of the model.

Each is called with `serving.answers` and pytest's monkeypatch, and returns the function to put in its place.
"""

import keras
import tensorflow as tf

from kseg.export import serving
from kseg.inference.logits import logits_at
from kseg.layers import pooling


def wrong_mean(answers, monkeypatch):
    def faulty(model, images, *portable):
        return answers(model, tf.clip_by_value(tf.cast(images, tf.float32) + 9.0, 0, 255), *portable)

    return faulty


def swapped_channels(answers, monkeypatch):
    return lambda model, images, *portable: answers(model, images[..., ::-1], *portable)


def missing_index(answers, monkeypatch):
    unpool = pooling.unpool

    def without_last(pooled, indices):
        return unpool(
            keras.ops.where(keras.ops.cast(indices, "int32") == 3, keras.ops.zeros_like(pooled), pooled), indices
        )

    return patched(answers, monkeypatch, pooling, "unpool", without_last)


def transposed_axis(answers, monkeypatch):
    def faulty(model, images, height, width, **options):
        turned = tf.transpose(logits_at(model, images, height, width, **options), (0, 2, 1, 3))
        return tf.image.resize(turned, (height, width))

    return patched(answers, monkeypatch, serving, "logits_at", faulty)


def wrong_padding(answers, monkeypatch):
    pad = keras.ops.pad
    return patched(
        answers, monkeypatch, keras.ops, "pad", lambda x, widths: pad(x, [(after, before) for before, after in widths])
    )


def patched(answers, monkeypatch, owner, name, function):
    def faulty(model, images, *portable):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, function)
            return answers(model, images, *portable)

    return faulty


FAULTS = (wrong_mean, swapped_channels, missing_index, transposed_axis, wrong_padding)
