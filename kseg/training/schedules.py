"""Learning rates by step."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable("kseg")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up times a decay over the whole run; a function of the step alone, so a resumed run has no jump.

    Args:
        learning_rate: the rate at full height. total_steps: the run's optimizer steps.
        decay: "constant", "poly" ((1 - step/total)^0.9, DeepLab, arXiv 1706.05587, section 4), "cosine" or "steps".
        warmup_steps: steps over which the rate rises from 0.
        drops, drop_factor: of "steps": the rate is multiplied by the factor from each of these steps on.
    """

    def __init__(self, learning_rate, total_steps, decay="constant", warmup_steps=0, drops=(), drop_factor=0.1):
        self.learning_rate = learning_rate
        self.total_steps = total_steps
        self.decay = decay
        self.warmup_steps = warmup_steps
        self.drops = tuple(drops)
        self.drop_factor = drop_factor

    def __call__(self, step):
        step = ops.cast(step, "float32")
        done = ops.minimum(step / self.total_steps, 1.0)
        rate = self.learning_rate
        if self.decay == "poly":
            rate = rate * ops.power(1.0 - done, 0.9)
        elif self.decay == "cosine":
            rate = rate * 0.5 * (1.0 + ops.cos(math.pi * done))
        elif self.decay == "steps":
            for drop in self.drops:
                rate = rate * ops.where(step >= drop, self.drop_factor, 1.0)
        return rate * ops.minimum((step + 1.0) / max(self.warmup_steps, 1), 1.0)

    def get_config(self):
        names = ("learning_rate", "total_steps", "decay", "warmup_steps", "drops", "drop_factor")
        return {name: getattr(self, name) for name in names}


def learning_rate(learning_rate, total_steps, decay="constant", warmup_steps=0, drops=(), drop_factor=0.1):
    """Return a Schedule, or the rate itself where it never changes; the arguments are those of `Schedule`."""
    if decay == "constant" and not warmup_steps:
        return learning_rate
    return Schedule(learning_rate, total_steps, decay, warmup_steps, drops, drop_factor)
