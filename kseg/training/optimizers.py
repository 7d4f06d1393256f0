"""The optimizer of a run: schedule, decoupled weight decay, clipping, a rate and a start of its own for the encoder."""

import functools

import keras
from keras import ops

from kseg.training.trainers.keras_internals import OwnRates

_TOGETHER = 20  # variables in one call of Adam's rule: a call costs a step time, a longer rule the compilation
_UNDECAYED = ("bias", "gamma", "beta")  # of convolutions and of every normalisation


class _Recipe(OwnRates):
    """What Keras' optimizers lack, over one of them: the encoder's variables have a rate and a start of their own.

    Keras decays all variables at one rate.
    """

    _decay = 0.0
    _multiplier = 1.0
    _start_step = 0
    _encoder = frozenset()

    def configure(self, decay, encoder, multiplier, start_step):
        """Take what `make_optimizer` says, before `build`."""
        self._decay = decay
        self._multiplier = multiplier
        self._start_step = start_step
        self._encoder = frozenset(map(id, encoder))

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._decayed = tuple(variable.name not in _UNDECAYED for variable in variables)
        self._in_encoder = tuple(id(variable) in self._encoder for variable in variables)
        self._waiting = {}  # of `Adam`: updates that a step has asked for and that are not made yet

    def update_step(self, gradient, variable, learning_rate):
        index = self.index_of(variable)
        rate = ops.cast(learning_rate, variable.dtype)
        if self._in_encoder[index]:
            rate = rate * self._multiplier
        if self._decay and self._decayed[index]:
            self.assign_sub(variable, variable * (rate * self._decay))
        if self._in_encoder[index] and self._start_step:
            rate = rate * self._late_start(variable.dtype)
        self._follow_rule(gradient, variable, rate)

    def _follow_rule(self, gradient, variable, rate):
        """What the class of Keras does for one variable."""
        super().update_step(gradient, variable, rate)

    def _late_start(self, dtype):
        """The factor that makes the rate of a variable first updated at `start_step` as if the run began there."""
        return 1.0


class Adam(_Recipe, keras.optimizers.Adam):
    """Keras' Adam with `_Recipe`; on TensorFlow and one processor its rule is a function of many variables.

    Written out for each of the 180 variables of an R2U-Net the rule is half of the step's graph, and half of the time
    in which it is compiled. The function has the same operations in the same order, so the weights have the same bits.
    """

    def _follow_rule(self, gradient, variable, rate):
        if not _takes_rule(gradient):
            super()._follow_rule(gradient, variable, rate)
            return
        momentum, velocity = (moment.value.handle for moment in self.moments_of(variable))
        kind = self._in_encoder[self.index_of(variable)]  # whose variables have one rate
        self._waiting.setdefault(kind, []).append((rate, (gradient, variable.handle, momentum, velocity)))

    def finish_updates(self):
        waiting, self._waiting = self._waiting, {}
        steps = ops.convert_to_tensor(self.iterations)
        for updates in waiting.values():
            rate = updates[0][0]
            for start in range(0, len(updates), _TOGETHER):
                some = [update for _, update in updates[start : start + _TOGETHER]]
                _adam_rule(self.beta_1, self.beta_2, self.epsilon, len(some))(rate, steps, some)

    def _late_start(self, dtype):
        # Adam divides its moments by what they lack after t steps. Those that begin at zero later lack more: without
        # this an encoder's first steps after its freezing would be sqrt(.001) / .1, three times, too long.
        step = ops.cast(self.iterations + 1, dtype)
        own = ops.maximum(step - self._start_step, 1.0)  # loss scaling skips steps: the count may lag behind
        return self._correction(own) / self._correction(step)

    def _correction(self, step):
        return ops.sqrt(1.0 - self.beta_2**step) / (1.0 - self.beta_1**step)


def _takes_rule(gradient):
    """Whether Adam's rule may be a function: on GPUs and several replicas it was not measured."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    if tf.distribute.has_strategy() or tf.config.list_logical_devices("GPU"):
        return False
    return isinstance(gradient, tf.Tensor) and gradient.dtype == tf.float32


@functools.cache
def _adam_rule(beta_1, beta_2, epsilon, count):
    """Keras' `Adam.update_step`, operation by operation, of `count` float32 variables of any shapes; for TensorFlow.

    It is not inlined: that would make the graph large again, now in TensorFlow's optimizer of graphs.
    """
    import tensorflow as tf

    handle = tf.TensorSpec((), tf.resource)
    update = (tf.TensorSpec(None, tf.float32), handle, handle, handle)
    signature = [tf.TensorSpec((), tf.float32), tf.TensorSpec((), tf.int64), [update] * count]

    def rule(rate, steps, updates):
        step = tf.cast(steps + 1, tf.float32)
        alpha = rate * tf.sqrt(1 - tf.pow(beta_2, step)) / (1 - tf.pow(beta_1, step))
        for gradient, variable, momentum, velocity in updates:
            change = (gradient - _read(momentum)) * (1 - beta_1)
            tf.raw_ops.AssignAddVariableOp(resource=momentum, value=change)
            change = (tf.square(gradient) - _read(velocity)) * (1 - beta_2)
            tf.raw_ops.AssignAddVariableOp(resource=velocity, value=change)
            change = _read(momentum) * alpha / (tf.sqrt(_read(velocity)) + epsilon)
            tf.raw_ops.AssignSubVariableOp(resource=variable, value=change)

    whole = {"_noinline": True}
    return tf.function(rule, autograph=False, input_signature=signature, experimental_attributes=whole)


def _read(handle):
    import tensorflow as tf

    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)


class SGD(_Recipe, keras.optimizers.SGD):
    """Keras' SGD with `_Recipe`."""


def make_optimizer(
    name,
    learning_rate,
    *,
    momentum=0.9,
    weight_decay=0.0,
    clip_norm=0.0,
    encoder=(),
    encoder_lr_multiplier=1.0,
    encoder_start_step=0,
    loss_scaling=False,
):
    """Build the Keras optimizer of a run.

    Args:
        name: "adam", "adamw" (adam with weight decay) or "sgd", the only one with momentum.
        learning_rate: a number or a `Schedule`.
        weight_decay: decoupled for every rule (w - rate * decay * w beside the step: Loshchilov and Hutter 2019, arXiv
            1711.05101); biases and normalisations are left out.
        clip_norm: clip the global gradient norm to this; 0: off.
        encoder: the variables that the next two are for: their rate over that of the rest, and the steps before they
            are trained.
        loss_scaling: whether to scale the loss, for float16.
    Returns:
        keras.optimizers.Optimizer.
    """
    common = {"learning_rate": learning_rate, "global_clipnorm": clip_norm or None}
    optimizer = SGD(momentum=momentum, **common) if name == "sgd" else Adam(**common)
    optimizer.configure(weight_decay, encoder, encoder_lr_multiplier, encoder_start_step)
    return keras.optimizers.LossScaleOptimizer(optimizer) if loss_scaling else optimizer
