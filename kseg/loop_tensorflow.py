"""The training step on TensorFlow: one device or the replicas of a MirroredStrategy, one code path."""

import functools

import keras
import tensorflow as tf

from kseg.loop import Loop, choose_devices
from kseg.metrics import SegmentationScores


@functools.cache
def _mirrored(devices):
    """One strategy for the whole process: the collective operations of a second one get the keys of the first's, and
    fail where the two steps reduce other shapes."""
    return tf.distribute.MirroredStrategy(devices)


class TensorFlowLoop(Loop):
    """Runs steps over `tf.distribute`; `make_loop` says what the arguments mean."""

    def __init__(self, strategy, batch_size, deterministic):
        super().__init__()
        if deterministic:
            tf.config.experimental.enable_op_determinism()
        kinds = (tf.config.list_logical_devices(kind) for kind in ("GPU", "CPU"))
        devices = choose_devices(strategy, batch_size, *([device.name for device in kind] for kind in kinds))
        self.devices = len(devices)
        self.strategy = tf.distribute.get_strategy()
        if self.devices > 1:
            self.strategy = _mirrored(tuple(devices))
        self.scope = self.strategy.scope

    def attach(self, model, optimizer, num_classes, terms, auxiliary=None, frozen=None):
        """Take the model and the optimizer, both built in `scope`, and the `objectives.Term`s of the loss.

        Args:
            auxiliary: (`add_auxiliary_head`'s model, weight of its second output's loss).
            frozen: (variables, steps): these are not trained in the first so many steps of the run.
        """
        self.model, self.optimizer, self.terms = model, optimizer, terms
        self.trained, self._auxiliary_weight = auxiliary or (model, 0.0)
        frozen, self._frozen_steps = frozen or ((), 0)
        with self.scope():
            self.metric = SegmentationScores(num_classes)
            optimizer.build(self.trained.trainable_variables)
        self.synchronize_batch_norm(True)
        self._train_only([v for v in self.trained.trainable_variables if not any(v is other for other in frozen)])
        self.restart()

    def _train_only(self, variables):
        """Have these variables trained from the next step on: a new graph without the others' gradients."""
        self._variables, self._step = variables, tf.function(self._distributed_step)

    def step(self, number, batch):
        if number > self._frozen_steps and len(self._variables) < len(self.trained.trainable_variables):
            self._train_only(self.trained.trainable_variables)
        super().step(number, batch)

    def peak_memory(self):
        gpus = range(len(tf.config.list_logical_devices("GPU")))
        peaks = [tf.config.experimental.get_memory_info(f"GPU:{i}")["peak"] for i in gpus]
        return (max(peaks), "GPU memory") if peaks else super().peak_memory()

    def batches(self, source, plans, batch_size, result):
        """Iterate over the batches of the plans, spread over the replicas.

        Args: source: Examples. plans, batch_size: as `source.training_batches` takes them. result: what follows them
            there, (height, width, crop, label_resize).
        """
        data = source.training_batches(plans, batch_size, *result)
        return iter(self.strategy.experimental_distribute_dataset(data))

    def synchronize_batch_norm(self, synchronized):
        """Unsynchronised, Keras 3 keeps moving statistics of its own on each replica and saves the first's.

        A saved file has it off, for it loads under TensorFlow only otherwise.
        """
        for layer in self.trained._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = synchronized and self.devices > 1

    def _run(self, batch):
        return self._step(*batch)

    def _read(self, result):
        return float(result[0]), int(result[1])

    def _distributed_step(self, images, labels):
        parts = self.strategy.run(self._replica_step, (images, labels))
        loss, broken = (self.strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None) for part in parts)
        return loss, broken

    def _replica_step(self, images, labels):
        context = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            outputs = self.trained(images, training=True)
            logits, *others = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            loss = 0.0
            for term in self.terms:
                # The mean is over the valid pixels of all replicas: a mean of the replicas' means is another loss.
                count = context.all_reduce(tf.distribute.ReduceOp.SUM, term.count(labels, logits.shape[-1]))
                totals = term.total(labels, logits)
                for other in others:
                    totals += self._auxiliary_weight * term.total(labels, other)
                loss += term.weight * totals / tf.maximum(count, 1.0)
            if self.trained.losses:  # each replica adds its share, once over all of them
                loss += tf.add_n(self.trained.losses) / self.devices
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self._variables)
        broken = 1 - tf.cast(tf.math.is_finite(tf.linalg.global_norm(gradients)), tf.int32)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            # It skips a step whose gradients are not finite, but looks at the first replica's only: tell it of all.
            skip = context.all_reduce(tf.distribute.ReduceOp.SUM, broken) > 0
            gradients = [tf.where(skip, tf.cast(float("nan"), g.dtype), g) for g in gradients]
            broken = tf.zeros_like(broken)
        self.optimizer.apply(gradients, self._variables)
        self.metric.update_state(labels, logits)
        return loss, broken
