"""A few steps of either backend's trainer with a moving average, and the same average in NumPy."""

import keras
import numpy as np
import tiny

from kseg.losses import loss_terms
from kseg.settings import make_settings
from kseg.training.build import build_optimizer, precision
from kseg.training.trainers import make_trainer


def values(variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def by_hand(start, after, applied, momentum):
    """The averages from what variables were at the start and after each step, and whether the step was taken."""
    averages = [value.astype(np.float64) for value in start]
    t = 0
    for step, taken in zip(after, applied, strict=True):
        if taken:
            m = min(momentum, (1 + t) / (10 + t))
            averages = [m * a + (1 - m) * v for a, v in zip(averages, step, strict=True)]
            t += 1
    return averages


def run(momentum, strategy="one", passes=1, mixed_precision="none", skipped=(), frozen_steps=0, remat=False, steps=5):
    """Train `tiny` on random images; in the steps `skipped` float16's gradients overflow.

    Returns: (trainer, its averages, those by hand, the variables at the end), of the floating-point variables.
    """
    trainer = make_trainer(strategy, 4, accumulate_steps=passes)
    settings = make_settings(
        train_steps=steps,
        optimizer="sgd",
        learning_rate=0.1,
        mixed_precision=mixed_precision,
    )
    keras.utils.set_random_seed(0)
    with trainer.scope(), precision(mixed_precision):
        model = tiny.build_tiny()
        optimizer = build_optimizer(settings, steps)
    first = model.get_layer("first").trainable_variables
    frozen = {"frozen": first, "frozen_steps": frozen_steps} if frozen_steps else {}
    trainer.build(model, optimizer, 3, loss_terms("cross_entropy"), ema_momentum=momentum, **frozen)
    if remat:
        trainer.rematerialize((32, 64))
    floats = [v for v in model.variables if keras.backend.is_float_dtype(v.dtype)]
    random = np.random.default_rng(0)
    start = values(floats)
    after = []
    applied = []
    for step in range(1, steps + 1):
        if mixed_precision == "float16":
            optimizer.dynamic_scale.assign(3e38 if step in skipped else 1024.0)
        images = random.integers(0, 256, (4, 32, 64, 3), np.uint8)
        labels = random.integers(0, 3, (4, 32, 64), np.uint8)
        trainer.train_step(step, _spread(trainer, images, labels))
        trainer.wait()
        after.append(values(floats))
        applied.append(step not in skipped)
    assert int(optimizer.iterations) == sum(applied)
    with trainer.averaged_weights():
        averages = values(floats)
    for value, variable in zip(after[-1], floats, strict=True):  # and they are back
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    return trainer, averages, by_hand(start, after, applied, momentum), after[-1]


def _spread(trainer, images, labels):
    if keras.backend.backend() == "jax":
        return images, labels
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    return next(iter(trainer.strategy.experimental_distribute_dataset(data)))
