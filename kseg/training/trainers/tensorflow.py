"""The training step on TensorFlow: one device, the replicas of a MirroredStrategy or a group's, one code path."""

import contextlib
import functools
import os
import warnings

import keras
import tensorflow as tf

from kseg.io.errors import InputError
from kseg.io.runtime import describe_kernels
from kseg.metrics.keras_metric import SegmentationScores
from kseg.training.distribution.replicas import draw_apart, join_group, mirrored, own_on_each_replica
from kseg.training.trainers.base import Trainer, choose_devices, devices_text
from kseg.training.trainers.keras_internals import every_layer
from kseg.training.trainers.remat import Rematerialized

_SUM = tf.distribute.ReduceOp.SUM
_NVIDIA = "/proc/driver/nvidia/version"


class TensorFlowTrainer(Trainer):
    """Runs steps over `tf.distribute`; `make_trainer` says what the arguments mean."""

    def __init__(self, strategy, batch_size, deterministic, accumulate_steps):
        super().__init__()
        if deterministic:
            tf.config.experimental.enable_op_determinism()
        self._passes = accumulate_steps
        self.strategy = tf.distribute.get_strategy()
        images = batch_size // accumulate_steps
        if strategy == "multiworker":
            self.group = join_group(images)
            self.strategy = self.group.strategy
        else:
            kinds = (tf.config.list_logical_devices(kind) for kind in ("GPU", "CPU"))
            devices = choose_devices(strategy, images, *([device.name for device in kind] for kind in kinds))
            if len(devices) > 1:
                self.strategy = mirrored(tuple(devices))
        self.devices = self.strategy.num_replicas_in_sync
        self.scope = self.strategy.scope

    def build(
        self,
        model,
        optimizer,
        num_classes,
        terms,
        *,
        auxiliary=None,
        auxiliary_weight=0.0,
        frozen=(),
        frozen_steps=0,
        ema_momentum=0.0,
    ):
        """Take the model and the optimizer, both built in `scope`, and the `losses.Term`s of the loss.

        Args:
            auxiliary: `add_auxiliary_head`'s model. auxiliary_weight: of the loss of its second output.
            frozen: variables that are not trained in the first `frozen_steps` steps of the run.
            ema_momentum: of the MovingAverage; 0: none.
        """
        self.model = model
        self.trained = model if auxiliary is None else auxiliary
        self.optimizer = optimizer
        self._terms = terms
        self._auxiliary_weight = auxiliary_weight
        self._frozen_steps = frozen_steps
        trainable = self.trained.trainable_variables
        with self.scope():
            self.metric = SegmentationScores(num_classes)
            optimizer.build(trainable)
            accumulated = trainable if self._passes > 1 else ()
            self._sums = {id(variable): own_on_each_replica(variable) for variable in accumulated}
            self._start_average(ema_momentum)
        self._forward = functools.partial(self.trained, training=True)
        if self.devices > 1:
            draw_apart(self.trained)
        self.synchronize_batch_norm(True)
        left_out = {id(variable) for variable in frozen}
        self._compile([variable for variable in trainable if id(variable) not in left_out])
        self.restart()

    def _compile(self, variables):
        """Have these variables trained from the next step on: a new graph without the others' gradients."""
        self._variables = variables
        self._compiled = False
        self._step = self._whole_step() if self._passes == 1 else self._step_in_passes()

    def compiles(self, number):
        return super().compiles(number) or self._thaws(number)

    def _thaws(self, number):
        return number > self._frozen_steps and len(self._variables) < len(self.trained.trainable_variables)

    def train_step(self, number, batch):
        """Start the step of that number (from 1) on a batch of `batches`."""
        if self._thaws(number):
            self._compile(self.trained.trainable_variables)
        self._started.append((number, *self._step(*batch)))
        self._compiled = True

    def _whole_step(self):
        """Return images, labels -> (loss, replicas whose gradient is not finite), in one graph."""

        @_compiled
        def step(images, labels):
            def replica_step(images, labels):
                loss, gradients = self._gradients(images, labels, labels)
                return loss, self._apply(gradients)

            return self._sum(self.strategy.run(replica_step, (images, labels)))

        return step

    def _step_in_passes(self):
        """Return the same of a batch in parts, a call for each, so that nothing of one is kept while another runs."""

        @_compiled
        def one_pass(images, labels, number):
            def replica_pass(images, labels, number):
                shares = (tf.reshape(x, (self._passes, -1, *x.shape[1:]))[number] for x in (images, labels))
                loss, gradients = self._gradients(*shares, labels)
                for variable, gradient in zip(self._variables, gradients, strict=True):
                    self._sums[id(variable)].assign_add(gradient)
                return loss

            return self._sum(self.strategy.run(replica_pass, (images, labels, number)))

        @_compiled
        def update():
            def replica_update():
                sums = [self._sums[id(variable)] for variable in self._variables]
                broken = self._apply([total.read_value() for total in sums])
                for total in sums:
                    total.assign(tf.zeros_like(total))
                return broken

            return self._sum(self.strategy.run(replica_update))

        def step(images, labels):
            loss = sum(one_pass(images, labels, tf.constant(number)) for number in range(self._passes))
            return loss, update()

        return step

    def _sum(self, parts):
        """The sum over the replicas of each thing that they gave."""
        return tf.nest.map_structure(lambda part: self.strategy.reduce(_SUM, part, axis=None), parts)

    def _gradients(self, images, labels, all_labels):
        """Loss and gradients of a replica's images; `all_labels` are those of all its passes."""
        context = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            outputs = self._forward(images)
            logits, *others = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            loss = 0.0
            for term in self._terms:
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

    def hardware(self):
        if tf.config.list_logical_devices("GPU"):
            names = {tf.config.experimental.get_device_details(gpu).get("device_name", "unknown") for gpu in _gpus()}
            return devices_text(self.devices, "GPU", ", ".join(sorted(names))), None
        kernels, warning = describe_kernels()
        if warning is None and os.path.exists(_NVIDIA) and not _gpus():
            warning = "There is an NVIDIA driver, but TensorFlow finds no GPU. TF_CPP_MIN_LOG_LEVEL=0 shows why."
        return devices_text(self.devices, "CPU", kernels.partition(",")[0]), warning

    def peak_memory(self):
        gpus = range(len(tf.config.list_logical_devices("GPU")))
        peaks = [tf.config.experimental.get_memory_info(f"GPU:{i}")["peak"] for i in gpus]
        return (max(peaks), "GPU memory") if peaks else super().peak_memory()

    def rematerialize(self, size):
        """Keep few maps of images of (height, width) for the gradient and compute the others again."""
        self._forward = Rematerialized(self.trained, size)

    def batches(self, source, plans, batch_size, resize):
        """Iterate over the batches of the plans, spread over the replicas; a worker reads its own positions only.

        Args: source: Examples. plans, batch_size, resize: as `source.training_batches` takes them.
        """
        own = slice(None)
        if self.group:
            share = batch_size // self.group.workers
            own = slice(self.group.index * share, (self.group.index + 1) * share)

        def own_plans():
            for plan in plans():
                yield plan[:, own]

        def dataset(context):
            return source.training_batches(own_plans, batch_size // self.devices, resize)

        return iter(self.strategy.distribute_datasets_from_function(dataset))

    def synchronize_batch_norm(self, synchronized):
        """Unsynchronised, Keras 3 keeps moving statistics of its own on each replica and saves the first's.

        A saved file has it off, because otherwise it loads only under TensorFlow.
        """
        for layer in every_layer(self.trained):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = synchronized and self.devices > 1

    @contextlib.contextmanager
    def savable(self):
        """As the parent's, with batch norms of one device, which load under every backend."""
        self.synchronize_batch_norm(False)
        with super().savable():
            yield
        self.synchronize_batch_norm(True)


def _gpus():
    return tf.config.list_physical_devices("GPU")


def _compiled(function):
    """As a graph. No autograph, as in Keras' `fit`: it turns an InputError of a layer into one of its own."""
    return tf.function(function, autograph=False)


def _without_gaps(gradients, variables):
    """Return the gradients, zeros where the loss does not depend on a variable, as on JAX and under accumulation."""
    missing = [v.path for v, gradient in zip(variables, gradients, strict=True) if gradient is None]
    if len(missing) == len(gradients):
        raise InputError("The loss depends on no weight of the model. Connect its weights to the logits.")
    if missing:
        # Said once, when the step is traced.
        warnings.warn(f"The loss does not depend on {', '.join(missing)}: not trained.", stacklevel=2)
    pairs = zip(variables, gradients, strict=True)
    return [tf.zeros_like(variable) if gradient is None else gradient for variable, gradient in pairs]
