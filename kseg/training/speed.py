"""How fast a model trains and predicts on this machine, measured on random images."""

import itertools
import time
from typing import NamedTuple

import keras
import numpy as np

from kseg import losses
from kseg.inference.predictor import predictor
from kseg.io.progress import Waiting
from kseg.models import build_model, costs
from kseg.training.arguments import check_model
from kseg.training.build import build_optimizer, precision, training_parts
from kseg.training.screen import precision_of
from kseg.training.trainers import make_trainer

_SIZE = (256, 512)  # of the images, where the settings have none


class Speed(NamedTuple):
    """What `measure_speed` found; `str()` is the table.

    model, hardware, precision: words. parameters: of the model. train_size, predict_size: (height, width).
    batch_size: of a training step. compile_seconds: of the training step and of the prediction. step_seconds: of a
    training step. image_seconds: of predicting an image. memory: of `Trainer.peak_memory`, after training.
    """

    model: str
    hardware: str
    precision: str
    parameters: int
    train_size: tuple[int, int]
    predict_size: tuple[int, int]
    batch_size: int
    compile_seconds: tuple[float, float]
    step_seconds: float
    image_seconds: float
    memory: tuple[int, str]

    def __str__(self):
        rows = [("", "image", "batch", "images/s", "ms/batch", "compiled in")]
        sizes = [f"{width}x{height}" for height, width in (self.train_size, self.predict_size)]
        for name, size, batch, seconds, compiled in (
            ("train", sizes[0], self.batch_size, self.step_seconds, self.compile_seconds[0]),
            ("predict", sizes[1], 1, self.image_seconds, self.compile_seconds[1]),
        ):
            rows.append(
                (name, size, str(batch), f"{batch / seconds:.3g}", f"{1000 * seconds:.0f}", f"{compiled:.1f} s")
            )
        lines = ["".join([f"{row[0]:8}", *(f"{cell:>12}" for cell in row[1:])]) for row in rows]
        head = f"{self.model} on {self.hardware}, {self.precision}, {self.parameters:,} parameters"
        size, kind = self.memory
        return "\n".join(
            [head, *lines, f"Training takes {size / 1e9:.2f} GB of {kind} at most, TensorFlow's own included."]
        )


def measure_speed(model, settings, *, model_options=None, strategy="auto", num_classes=19, steps=20):
    """Time training steps and predictions of a model on random images.

    Args:
        model: a name of `kseg.MODELS`. settings: `kseg.settings.Settings`; the size is that of the crops, else of the
            images, else 512x256. Weights are random: files of the settings are not read.
        model_options, strategy: as in `kseg.train`. num_classes: of the model. steps: training steps and images that
            are timed, after those that are compiled.
    Returns:
        Speed
    Raises:
        ValueError: an option or a size that does not fit the model.
    """
    options = {name: value for name, value in check_model(model, model_options).items() if name != "encoder_weights"}
    predict_size = settings.size or _SIZE
    train_size = settings.crop or predict_size
    batch_size = settings.batch_size
    trainer = make_trainer(strategy, batch_size, settings.deterministic, settings.accumulate_steps)
    with trainer.scope(), precision(settings.mixed_precision):
        shape = (None, None, 3) if settings.crop else (*predict_size, 3)
        built = build_model(model, shape, settings.num_outputs or num_classes, **options)
        encoder, parts = training_parts(built, settings, steps)
        optimizer = build_optimizer(settings, steps + 1, steps, encoder)
    weights = None if settings.class_weights == "none" else np.ones(built.output_shape[-1], np.float32)
    terms = losses.loss_terms(settings.loss, weights, settings.focal_gamma, settings.top_k_share)
    trainer.build(built, optimizer, num_classes, terms, **parts)
    if settings.remat:
        trainer.rematerialize(train_size)
    hardware, _ = trainer.hardware()
    random = np.random.default_rng(settings.seed)
    batches = trainer.batches(_Still(random, train_size, num_classes), None, batch_size, None)

    def step(number):
        trainer.train_step(number, next(batches))
        trainer.wait()

    compiled, step_seconds = _times("training", step, steps)
    memory = trainer.peak_memory()
    predict = predictor(built)
    image = random.integers(0, 256, (1, *predict_size, 3), np.uint8)
    predict_compiled, image_seconds = _times("prediction", lambda _: predict(image, *predict_size, ["random"]), steps)
    return Speed(
        model=built.name,
        hardware=hardware,
        precision=precision_of(settings),
        parameters=costs.parameters(built),
        train_size=train_size,
        predict_size=predict_size,
        batch_size=batch_size,
        compile_seconds=(compiled, predict_compiled),
        step_seconds=step_seconds,
        image_seconds=image_seconds,
        memory=memory,
    )


def _times(what, run, count):
    """Return the seconds of the first call of `run`, which is given its number from 1 on, and of a later one."""
    begin = time.perf_counter()
    with Waiting(f"{what}: compiling"):
        run(1)
    compiled = time.perf_counter()
    with Waiting(f"{what}: {count} times"):
        for number in range(2, count + 2):
            run(number)
    return compiled - begin, (time.perf_counter() - compiled) / count


class _Still:
    """In place of a split: one batch of random images and labels, again and again."""

    def __init__(self, random, size, classes):
        self._random = random
        self._size = size
        self._classes = classes

    def training_batches(self, plans, batch_size, resize):
        images = self._random.integers(0, 256, (batch_size, *self._size, 3), np.uint8)
        labels = self._random.integers(0, self._classes, (batch_size, *self._size), np.uint8)
        if keras.backend.backend() != "tensorflow":
            return itertools.repeat((images, labels))
        import tensorflow as tf

        return tf.data.Dataset.from_tensors((images, labels)).repeat()
