"""Strategies over devices and machines, and what differs from replica to replica."""

import contextlib
import functools
import json

import numpy as np
import tensorflow as tf

from kseg.io.errors import InputError, LostProcessError
from kseg.training.distribution.cluster import read_group
from kseg.training.trainers.keras_internals import every_layer, seed_generators

_APART = 7_919  # between the seeds of two replicas: more than a model has layers with seeds that follow each other
# What a collective operation ends with when another worker is gone. A broken record gives others.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)


@functools.cache
def mirrored(devices):
    """One strategy for the whole process.

    The collective operations of a second one get the keys of the first's, and fail where the two steps reduce other
    shapes.
    """
    return tf.distribute.MirroredStrategy(devices)


class WorkerGroup:
    """The workers that train one model together. This one is `index` of `workers`; the first is the chief."""

    def __init__(self, strategy, index, workers):
        self.strategy = strategy
        self.index = index
        self.workers = workers

    def from_chief(self, value):
        """Return the chief's value (JSON types) on every worker, all of which must call this: the group meets here."""
        chief = self.index == 0
        text = np.frombuffer(json.dumps(value).encode() if chief else b"", np.uint8).astype(np.int32)
        length = int(self._sum(np.int32(len(text))))
        return json.loads(bytes(self._sum(np.resize(text, length) * chief).astype(np.uint8)))

    def _sum(self, value):
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, tf.identity(value), axis=None).numpy()

    @contextlib.contextmanager
    def readable_errors(self):
        """A context in which the loss of another worker is one clear line (ConnectionError)."""
        try:
            yield
        except _LOST as error:
            if self.workers == 1:
                raise
            reason = str(error.message).strip().split("\n")[0][:300]
            raise LostProcessError(
                f"Another worker of the group is gone ({reason}). Start all of them again, with the same command: they "
                "continue from the last checkpoint."
            ) from error


def join_group(images):
    """Return the WorkerGroup of this process; waits until all workers are there."""
    group = read_group()
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise InputError(
            f"strategy multiworker must be the first thing that TensorFlow does in a process ({error}). Call "
            "kseg.train before anything else runs there."
        ) from error
    if images % strategy.num_replicas_in_sync:
        raise InputError(
            f"A batch (of one pass, if accumulated) must be divisible by the {strategy.num_replicas_in_sync} devices "
            f"of the {group.workers} workers, got {images} images."
        )
    return WorkerGroup(strategy, group.index, group.workers)


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
        seed = draw_common(ordered)
        context = tf.distribute.get_replica_context()
        replica = tf.cast(context.replica_id_in_sync_group if context else 0, seed.dtype)
        return seed + tf.stack([replica * _APART, tf.zeros_like(replica)])

    for layer in every_layer(model):
        for generator in seed_generators(layer):
            generator.next = functools.partial(draw, generator.next)
