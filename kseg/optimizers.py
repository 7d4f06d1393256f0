"""The optimizer of a run, with its learning-rate schedule."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable("kseg")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up times a decay over the whole run; a function of the step alone, so a resumed run has no jump.

    Args:
        learning_rate: the rate at full height. total_steps: the run's optimizer steps.
        decay: "constant", "poly" ((1 - step/total)^0.9, DeepLab, arXiv 1706.05587, section 4) or "cosine".
        warmup_steps: steps over which the rate rises from 0.
    """

    def __init__(self, learning_rate, total_steps, decay="constant", warmup_steps=0):
        self.learning_rate, self.total_steps = learning_rate, total_steps
        self.decay, self.warmup_steps = decay, warmup_steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        done = ops.minimum(step / self.total_steps, 1.0)
        rate = self.learning_rate
        if self.decay == "poly":
            rate = rate * ops.power(1.0 - done, 0.9)
        elif self.decay == "cosine":
            rate = rate * 0.5 * (1.0 + ops.cos(math.pi * done))
        return rate * ops.minimum((step + 1.0) / max(self.warmup_steps, 1), 1.0)

    def get_config(self):
        names = ("learning_rate", "total_steps", "decay", "warmup_steps")
        return {name: getattr(self, name) for name in names}


def make_optimizer(settings, total_steps):
    """Build the Keras optimizer of a run.

    Args:
        settings: kseg.settings.Settings. total_steps: optimizer steps of the whole run.
    Returns:
        keras.optimizers.Optimizer, wrapped for loss scaling under float16. Decoupled weight decay leaves out biases
        and batch norm.
    """
    rate = settings.learning_rate
    if settings.lr_schedule != "constant" or settings.warmup_steps:
        rate = Schedule(rate, total_steps, settings.lr_schedule, settings.warmup_steps)
    common = {
        "learning_rate": rate,
        "weight_decay": settings.weight_decay or None,
        "use_ema": settings.ema_momentum > 0,
        "ema_momentum": settings.ema_momentum or 0.99,
    }
    if settings.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=settings.momentum, **common)
    elif settings.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(**common)
    else:
        optimizer = keras.optimizers.Adam(**common)
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if settings.mixed_precision == "float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
