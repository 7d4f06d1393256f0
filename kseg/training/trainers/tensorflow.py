"""The training step on TensorFlow: one device, the replicas of a MirroredStrategy or a group's, one code path."""

import contextlib
import functools
import json
import warnings

import keras
import numpy as np
import tensorflow as tf

from kseg.io.errors import InputError, LostProcessError
from kseg.io.runtime import describe_kernels
from kseg.metrics.keras_metric import SegmentationScores
from kseg.training.distribution.cluster import Group
from kseg.training.distribution.replicas import draw_apart, join_group, mirrored, own_on_each_replica
from kseg.training.trainers.base import Loop, choose_devices
from kseg.training.trainers.remat import Rematerialized

_SUM = tf.distribute.ReduceOp.SUM
# What a collective operation ends with when another worker is gone. A broken record gives others.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)


class TensorFlowLoop(Loop):
    """Runs steps over `tf.distribute`; `make_loop` says what the arguments mean."""

    def __init__(self, strategy, batch_size, deterministic, accumulate_steps):
        super().__init__()
        if deterministic:
            tf.config.experimental.enable_op_determinism()
        self._passes, self._group = accumulate_steps, Group(0, 1)
        self.strategy = tf.distribute.get_strategy()
        images = batch_size // accumulate_steps
        if strategy == "multiworker":
            self.strategy, self._group = join_group(images)
        else:
            kinds = (tf.config.list_logical_devices(kind) for kind in ("GPU", "CPU"))
            devices = choose_devices(strategy, images, *([device.name for device in kind] for kind in kinds))
            if len(devices) > 1:
                self.strategy = mirrored(tuple(devices))
        self.devices, self.chief = self.strategy.num_replicas_in_sync, self._group.index == 0
        self.scope = self.strategy.scope

    def attach(self, model, optimizer, num_classes, terms, auxiliary=None, frozen=None, ema_momentum=0.0):
        """Take the model and the optimizer, both built in `scope`, and the `losses.Term`s of the loss.

        Args:
            auxiliary: (`add_auxiliary_head`'s model, weight of its second output's loss).
            frozen: (variables, steps): these are not trained in the first so many steps of the run.
            ema_momentum: of the MovingAverage; 0: none.
        """
        self.model, self.optimizer, self.terms = model, optimizer, terms
        self.trained, self._auxiliary_weight = auxiliary or (model, 0.0)
        frozen, self._frozen_steps = frozen or ((), 0)
        with self.scope():
            self.metric = SegmentationScores(num_classes)
            optimizer.build(self.trained.trainable_variables)
            variables = self.trained.trainable_variables if self._passes > 1 else ()
            self._sums = {id(variable): own_on_each_replica(variable) for variable in variables}
            self._start_average(ema_momentum)
        self._forward = functools.partial(self.trained, training=True)
        if self.devices > 1:
            draw_apart(self.trained)
        self.synchronize_batch_norm(True)
        self._train_only([v for v in self.trained.trainable_variables if not any(v is other for other in frozen)])
        self.restart()

    def _train_only(self, variables):
        """Have these variables trained from the next step on: a new graph without the others' gradients."""
        self._variables = variables
        parts = self._distributed_step, self._distributed_pass, self._distributed_update
        # No autograph, as in Keras' `fit`: it turns an InputError of a layer into one of its own.
        self._step, self._pass, self._update = (tf.function(part, autograph=False) for part in parts)

    def step(self, number, batch):
        if number > self._frozen_steps and len(self._variables) < len(self.trained.trainable_variables):
            self._train_only(self.trained.trainable_variables)
        super().step(number, batch)

    def hardware(self):
        words, warning = super().hardware()
        if tf.config.list_logical_devices("GPU"):
            return words, warning
        kernels, warning = describe_kernels()
        return f"{words} (CPU: {kernels})", warning

    def peak_memory(self):
        gpus = range(len(tf.config.list_logical_devices("GPU")))
        peaks = [tf.config.experimental.get_memory_info(f"GPU:{i}")["peak"] for i in gpus]
        return (max(peaks), "GPU memory") if peaks else super().peak_memory()

    def rematerialize(self, size):
        """Keep few maps of images of (height, width) for the gradient and compute the others again."""
        self._forward = Rematerialized(self.trained, size)

    def batches(self, source, plans, batch_size, result):
        """Iterate over the batches of the plans, spread over the replicas; a worker reads its own positions only.

        Args: source: Examples. plans, batch_size: as `source.training_batches` takes them. result: what follows them
            there, (height, width, crop, label_resize).
        """
        share = batch_size // self._group.workers
        own = slice(self._group.index * share, (self._group.index + 1) * share)

        def own_plans():
            for plan in plans():
                yield plan[:, own]

        def dataset(context):
            return source.training_batches(own_plans, batch_size // self.devices, *result)

        return iter(self.strategy.distribute_datasets_from_function(dataset))

    def synchronize_batch_norm(self, synchronized):
        """Unsynchronised, Keras 3 keeps moving statistics of its own on each replica and saves the first's.

        A saved file has it off, for it loads under TensorFlow only otherwise.
        """
        for layer in self.trained._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = synchronized and self.devices > 1

    def from_chief(self, value):
        if self._group.workers == 1:
            return value
        text = np.frombuffer(json.dumps(value).encode() if self.chief else b"", np.uint8).astype(np.int32)
        length = int(self._sum_over_workers(np.int32(len(text))))
        return json.loads(bytes(self._sum_over_workers(np.resize(text, length) * self.chief).astype(np.uint8)))

    def _sum_over_workers(self, value):
        return self.strategy.reduce(_SUM, tf.identity(value), axis=None).numpy()

    @contextlib.contextmanager
    def readable_errors(self):
        try:
            yield
        except _LOST as error:
            if self._group.workers == 1:
                raise
            reason = str(error.message).strip().split("\n")[0][:300]
            raise LostProcessError(
                f"Another worker of the group is gone ({reason}). Start all of them again, with the same command: they "
                "go on from the last checkpoint."
            ) from error

    def _run(self, batch):
        if self._passes == 1:
            return self._step(*batch)
        # A call for each pass, so that nothing of one is kept while another runs.
        loss = sum(self._pass(*batch, tf.constant(number)) for number in range(self._passes))
        return loss, self._update()

    def _read(self, result):
        return float(result[0]), int(result[1])

    def _everywhere(self, function, *arguments):
        """Run a function of a replica on all of them; the sums of what each gives."""
        given = self.strategy.run(function, arguments)
        return tf.nest.map_structure(lambda part: self.strategy.reduce(_SUM, part, axis=None), given)

    def _distributed_step(self, images, labels):
        return self._everywhere(self._replica_step, images, labels)

    def _distributed_pass(self, images, labels, number):
        return self._everywhere(self._replica_pass, images, labels, number)

    def _distributed_update(self):
        return self._everywhere(self._replica_update)

    def _replica_step(self, images, labels):
        loss, gradients = self._gradients(images, labels, labels)
        return loss, self._apply(gradients)

    def _replica_pass(self, images, labels, number):
        shares = (tf.reshape(x, (self._passes, -1, *x.shape[1:]))[number] for x in (images, labels))
        loss, gradients = self._gradients(*shares, labels)
        for variable, gradient in zip(self._variables, gradients, strict=True):
            self._sums[id(variable)].assign_add(gradient)
        return loss

    def _replica_update(self):
        sums = [self._sums[id(variable)] for variable in self._variables]
        broken = self._apply([total.read_value() for total in sums])
        for total in sums:
            total.assign(tf.zeros_like(total))
        return broken

    def _gradients(self, images, labels, all_labels):
        """Loss and gradients of a replica's images; `all_labels` are those of all its passes."""
        context = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            outputs = self._forward(images)
            logits, *others = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            loss = 0.0
            for term in self.terms:
                # The mean is over the valid pixels of all replicas and passes: a mean of their means is another loss.
                count = context.all_reduce(_SUM, term.count(all_labels, logits.shape[-1]))
                totals = term.total(labels, logits)
                for other in others:
                    totals += self._auxiliary_weight * term.total(labels, other)
                loss += term.weight * totals / tf.maximum(count, 1.0)
            if self.trained.losses:  # each adds its share, once over all of them
                loss += tf.add_n(self.trained.losses) / (self.devices * self._passes)
            scaled = self.optimizer.scale_loss(loss)
        self.metric.update_state(labels, logits)
        return loss, _without_gaps(tape.gradient(scaled, self._variables), self._variables)

    def _apply(self, gradients):
        """Update the weights; returns 1 where a gradient of this replica is not finite, else 0."""
        context = tf.distribute.get_replica_context()
        broken = 1 - tf.cast(tf.math.is_finite(tf.linalg.global_norm(gradients)), tf.int32)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            # It skips a step whose gradients are not finite, but looks at the first replica's only: tell it of all.
            skip = context.all_reduce(_SUM, broken) > 0
            gradients = [tf.where(skip, tf.cast(float("nan"), g.dtype), g) for g in gradients]
            broken = tf.zeros_like(broken)
        self.optimizer.apply(gradients, self._variables)
        if self.average:
            self.average.update()
        return broken


def _without_gaps(gradients, variables):
    """Return the gradients, zeros where the loss does not depend on a variable, as on JAX and under accumulation."""
    missing = [v.path for v, gradient in zip(variables, gradients, strict=True) if gradient is None]
    if len(missing) == len(gradients):
        raise InputError("The loss depends on no weight of the model. Give it a path from its weights to the logits.")
    if missing:
        # Said once, when the step is traced.
        warnings.warn(f"The loss does not depend on {', '.join(missing)}: not trained.", stacklevel=2)
    pairs = zip(variables, gradients, strict=True)
    return [tf.zeros_like(variable) if gradient is None else gradient for variable, gradient in pairs]
