"""The trainer of Keras' backend, by the strategy of a run."""

import keras

from kseg.io.errors import InputError
from kseg.settings.training_settings import check_accumulation
from kseg.training.arguments import check_strategy
from kseg.training.distribution.cluster import check_alone


def make_trainer(strategy, batch_size, deterministic=False, accumulate_steps=1):
    """Return the Trainer of Keras' backend.

    Args:
        strategy: "auto" (the most GPUs that divide the batch), "one", "mirrored" (all GPUs; without a GPU all logical
            CPU devices), "multiworker" (the group of TF_CONFIG; to be made before TensorFlow has run anything).
        batch_size: the global batch. deterministic: bit-identical repeats on a GPU.
        accumulate_steps: passes over parts of the batch that make one optimizer step.
    Raises:
        ValueError: unknown strategy; devices or passes that do not divide the batch; a backend without a trainer;
            a group of workers in TF_CONFIG without "multiworker", or none with it.
    """
    check_strategy(strategy)
    check_accumulation(batch_size, accumulate_steps)
    backend = keras.backend.backend()
    if strategy != "multiworker":
        check_alone(f"KERAS_BACKEND={backend}")
    if backend == "tensorflow":
        from kseg.training.trainers.tensorflow import TensorFlowTrainer

        return TensorFlowTrainer(strategy, batch_size, deterministic, accumulate_steps)
    if backend == "jax":
        from kseg.training.trainers.jax import JaxTrainer

        return JaxTrainer(strategy, batch_size, deterministic, accumulate_steps)
    raise InputError(f"Training needs KERAS_BACKEND tensorflow or jax, got {backend}.")
