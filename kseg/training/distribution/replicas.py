"""Strategies over devices and machines, and what differs from replica to replica."""

import functools

import tensorflow as tf

from kseg.io.errors import InputError
from kseg.training.distribution.cluster import read_group

_APART = 7_919  # between the seeds of two replicas: more than a model has layers with seeds that follow each other


@functools.cache
def mirrored(devices):
    """One strategy for the whole process.

    The collective operations of a second one get the keys of the first's, and fail where the two steps reduce other
    shapes.
    """
    return tf.distribute.MirroredStrategy(devices)


def join_group(images):
    """Return the strategy over all workers, and this one's Group; waits until all are there."""
    group = read_group()
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise InputError(
            f"strategy multiworker must be the first that TensorFlow does in a process ({error}). Call kseg.train "
            "before anything else runs there."
        ) from error
    if images % strategy.num_replicas_in_sync:
        raise InputError(
            f"A batch (of one pass, if accumulated) must divide by the {strategy.num_replicas_in_sync} devices of the "
            f"{group.workers} workers, got {images} images."
        )
    return strategy, group


def own_on_each_replica(variable):
    """Return a variable of zeros of the same shape that each replica fills by itself; to be made in the scope."""
    return tf.Variable(
        tf.zeros(variable.shape, variable.dtype),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )


def draw_apart(model):
    """Let random layers (dropout) draw otherwise on each replica, from seeds that are the same in every run.

    The state of a seed generator stays the same on all replicas, so that a checkpoint holds it once.
    """

    def draw(draw_common, ordered=True):
        seed, context = draw_common(ordered), tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group if context else 0, seed.dtype)
        return seed + tf.stack([replica * _APART, tf.zeros_like(replica)])

    for layer in model._flatten_layers():
        for generator in layer._seed_generators:
            generator.next = functools.partial(draw, generator.next)
