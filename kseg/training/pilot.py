"""What a run of some settings costs, found before it starts: counted on its model, and its first steps timed."""

import contextlib
import tempfile
import time

import keras

from kseg.data.pipeline.load import open_split
from kseg.io.errors import InputError
from kseg.models import costs
from kseg.training.arguments import check_model
from kseg.training.build import build_for_run
from kseg.training.train import train

STEPS = 10  # that are timed


def facts_of_run(model, data_dir, model_options, settings, timed=""):
    """Return what a study's budget needs to know of a run.

    Args:
        model, data_dir, model_options: as in `kseg.train`, a model by its name. settings: Settings. timed: "cpu" or
            "gpu" to time steps too, after one that compiles.
    Returns:
        dict: parameters; multiply_adds of one image at the size that is trained, forward, without an auxiliary head;
        batch_size; manifest (digest of the records); with timed, seconds_per_step: CPU seconds of all threads, or
        seconds of one GPU.
    Raises:
        InputError: settings or options that do not fit, or that may end a run before its budget.
    """
    if settings.patience:
        raise InputError(f"A run with a budget must not stop early, got patience={settings.patience}. Leave it out.")
    if timed:
        _check_device(timed)
    options = check_model(model, model_options)
    split = open_split(data_dir, "train", settings.label_set, settings.label_space)
    if settings.batch_size > len(split):
        raise InputError(f"batch_size must be at most the {len(split)} images of train, got {settings.batch_size}.")
    size = settings.size or split.common_size()
    built = build_for_run(model, options, settings, split, size, resumed=True)  # weights change no cost
    facts = {
        "parameters": costs.parameters(built),
        "multiply_adds": costs.multiply_adds(built, (*(settings.crop or size), 3)),
        "batch_size": settings.batch_size,
        "manifest": split.manifest.digest,
    }
    if timed:
        facts["seconds_per_step"] = _seconds_per_step(model, data_dir, options, settings, timed)
    return facts


class _Measured(Exception):
    """The pilot has its steps."""


class _Clock(keras.callbacks.Callback):
    """Notes the seconds at the end of each step, and ends the run after the last."""

    def __init__(self, timed):
        super().__init__()
        self._now = {"cpu": time.process_time, "gpu": time.perf_counter}[timed]
        self.marks = []

    def on_train_batch_end(self, batch, logs=None):
        # A GPU works on behind a step that has returned: this waits for it.
        keras.ops.convert_to_numpy(self.model.trainable_variables[0])
        self.marks.append(self._now())
        if len(self.marks) > STEPS:
            raise _Measured


def _check_device(timed):
    """Raise InputError for CPU seconds where there is a GPU, and for GPU seconds where there is none."""
    gpus = [name for name in keras.distribution.list_devices() if name.startswith("gpu")]  # JAX knows no type it lacks
    if timed == "cpu" and gpus:
        raise InputError(
            "A budget of CPU seconds says nothing about work on a GPU. Take a budget of gpu-seconds, multiply-adds or "
            "images, or hide the GPUs with CUDA_VISIBLE_DEVICES=-1."
        )
    if timed == "gpu" and not gpus:
        raise InputError(
            f"A budget of gpu-seconds needs a GPU, but {keras.backend.backend()} sees none. Take a budget of seconds "
            "(of the CPU), multiply-adds or images."
        )


def _seconds_per_step(model, data_dir, options, settings, timed):
    clock = _Clock(timed)
    values = vars(settings) | {"epochs": 0, "train_steps": STEPS + 1, "validate_every_epochs": STEPS + 1}
    if timed == "gpu":
        values["strategy"] = "one"  # so that the seconds on the wall are those of one GPU
    with tempfile.TemporaryDirectory() as workdir:
        with contextlib.suppress(_Measured):
            train(model, data_dir, workdir, model_options=options, callbacks=[clock], **values)
    return (clock.marks[-1] - clock.marks[0]) / STEPS
