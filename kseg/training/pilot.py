"""What a run of some settings costs, found before it starts: counted on its model, and its first steps timed."""

import contextlib
import tempfile
import time

import keras

from kseg.data.pipeline.load import open_split
from kseg.io.errors import InputError
from kseg.models import costs
from kseg.training.build import build_for_run, check_model
from kseg.training.train import train


def facts_of_run(model, data_dir, model_options, settings, pilot_steps=0):
    """Return what a study's budget needs to know of a run.

    Args:
        model, data_dir, model_options: as in `kseg.train`, a model by its name. settings: Settings. pilot_steps: how
            many steps to time, after one that compiles; 0: none.
    Returns:
        dict: parameters; multiply_adds of one image at the size that is trained, forward, without an auxiliary head;
        batch_size; manifest (digest of the records); with pilot_steps, seconds_per_step: CPU seconds of all
        threads.
    Raises:
        InputError: settings or options that do not fit, or that may end a run before its budget.
    """
    if settings.patience:
        raise InputError(f"A run with a budget must not stop early, got patience={settings.patience}. Leave it out.")
    if keras.backend.backend() != "tensorflow":
        raise InputError(f"Multiply-adds are counted with KERAS_BACKEND=tensorflow, got {keras.backend.backend()}.")
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
    if pilot_steps:
        facts["seconds_per_step"] = _seconds_per_step(model, data_dir, options, settings, pilot_steps)
    return facts


class _Measured(Exception):
    """The pilot has its steps."""


class _Clock(keras.callbacks.Callback):
    """Notes the CPU seconds at the end of each step, and ends the run after the last."""

    def __init__(self, steps):
        super().__init__()
        self._steps = steps
        self.marks = []

    def on_train_batch_end(self, batch, logs=None):
        self.marks.append(time.process_time())
        if len(self.marks) > self._steps:
            raise _Measured


def _seconds_per_step(model, data_dir, options, settings, steps):
    if keras.distribution.list_devices("gpu"):
        raise InputError(
            "A budget of CPU seconds says nothing about work on a GPU. Take a budget of multiply-adds or images, or "
            "hide the GPUs with CUDA_VISIBLE_DEVICES=-1."
        )
    clock = _Clock(steps)
    values = vars(settings) | {"epochs": 0, "train_steps": steps + 1, "validate_every_epochs": steps + 1}
    with tempfile.TemporaryDirectory() as workdir:
        with contextlib.suppress(_Measured):
            train(model, data_dir, workdir, model_options=options, callbacks=[clock], **values)
    return (clock.marks[-1] - clock.marks[0]) / steps
