"""Temperature scaling: one number that makes a model's confidences honest and changes no label."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
import scipy.optimize
import scipy.special

from kseg.evaluation.evaluate import open_for
from kseg.inference.finite import all_finite, check_logits, image_names
from kseg.inference.loading import as_model
from kseg.inference.logits import logits_at
from kseg.inference.predictor import compiled_for
from kseg.io.errors import InputError
from kseg.io.files import StrPath
from kseg.io.progress import progress_bar
from kseg.metrics.calibration import CalibrationCounts

LAYER = "temperature"
PIXELS = 2000  # of an image, drawn at random: the neighbours of a pixel tell little more
_BOUNDS = (0.02, 50.0)


class Temperature(NamedTuple):
    """A fitted temperature and what it does to the pixels that it was fitted on.

    value: the logits are divided by it; above 1 the model was over-confident. loss_before, loss_after: mean negative
    log likelihood of a pixel. error_before, error_after: expected calibration error of 15 bins. pixels: how many, of
    how many images.
    """

    value: float
    loss_before: float
    loss_after: float
    error_before: float
    error_after: float
    pixels: int
    images: int

    def __str__(self):
        return (
            f"temperature {self.value:.3f}, fitted on {self.pixels} pixels of {self.images} images\n"
            f"negative log likelihood {self.loss_before:.4f} -> {self.loss_after:.4f}\n"
            f"expected calibration error {self.error_before:.4f} -> {self.error_after:.4f} (on these same images)"
        )


def calibrate(
    model: keras.Model | StrPath,
    data_dir: StrPath,
    *,
    split: str = "val",
    label_set: str | None = None,
    label_space: str | None = None,
    progress: bool = False,
) -> tuple[keras.Model, Temperature]:
    """Fit a temperature on a split, and return the model that divides its logits by it.

    Guo et al. 2017 (arXiv 1706.04599, section 4.2): the temperature has the least negative log likelihood of the
    labels. It is one number for all classes, so every label and score stays as it is; confidences change. The model
    carries it as its last layer, a `keras.layers.Rescaling`, into .keras files and every export. A model that has
    one already gets the new one in its place.

    Args:
        model: keras.Model that gives logits, a run folder or a .keras file.
        data_dir: record folder. split: to fit on. Scores of calibration on that split are a little too good.
        label_set, label_space: as in `kseg.evaluate`. progress: show a bar of images.
    Returns:
        (keras.Model, Temperature).
    Raises:
        InputError: no logits (a model from outside, a SavedModel); no valid pixel, or none that is labelled wrong; as
            `kseg.evaluate`.
    """
    model = as_model(model)
    if not isinstance(model, keras.Model):
        raise InputError("Only a keras.Model gives logits to fit a temperature to: give the run or its .keras file.")
    if not isinstance(getattr(model, "output", None), keras.KerasTensor):
        raise InputError("A temperature needs a functional keras.Model: its last layer is joined to the graph.")
    model = _without_temperature(model)
    model, source = open_for(model, data_dir, split, label_set, label_space)
    if not isinstance(model, keras.Model):
        raise InputError("A temperature needs a model whose classes are the data's, in their order.")
    with source.readable_errors():
        logits, labels = _pixels(model, source, progress)
    if not len(labels):
        raise InputError(f"No pixel of split {split} in {data_dir} has a class, so no temperature can be fitted.")
    if np.array_equal(logits.argmax(axis=1), labels):
        raise InputError(
            f"The model labels all {len(labels)} pixels of split {split} right, so no temperature is the best. Use a "
            "split that is harder."
        )
    value = fit_temperature(logits, labels)
    found = Temperature(
        value=value,
        loss_before=_loss(logits, labels, 1.0),
        loss_after=_loss(logits, labels, value),
        error_before=_error(logits, labels, 1.0),
        error_after=_error(logits, labels, value),
        pixels=len(labels),
        images=len(source),
    )
    return with_temperature(model, value), found


def fit_temperature(logits, labels):
    """Return the temperature of the least negative log likelihood, between 0.02 and 50.

    Args: `logits`: (N, C). `labels`: integers (N,) of 0..C-1.
    """
    low, high = np.log(_BOUNDS)
    # The loss is convex in 1 / temperature, so it has one minimum in its logarithm too.
    found = scipy.optimize.minimize_scalar(
        lambda log: _loss(logits, labels, np.exp(log)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))


def with_temperature(model, value):
    """Return a model with the same layers and weights whose logits are divided by a temperature."""
    model = _without_temperature(model)
    divide = keras.layers.Rescaling(1 / value, dtype="float32", name=LAYER)
    return keras.Model(model.input, divide(model.output), name=model.name)


def _without_temperature(model):
    for layer in model.layers:
        if layer.name == LAYER:
            return keras.Model(model.input, layer.input, name=model.name)
    return model


def _pixels(model, source, progress):
    """Return logits (N, C) and labels (N,) of some valid pixels of every image of a split."""
    compiled = compiled_for(model, "logits", lambda images, h, w: _with_finite(logits_at(model, images, h, w)))
    kept = []
    classes = source.label_set.num_classes
    with progress_bar("calibrate", len(source), shown=progress, warm=True) as bar:
        for index in range(len(source)):
            image, truth = source[index]
            logits, finite = compiled(image[np.newaxis], *truth.shape)
            check_logits(finite, image_names(source.split.names, index, 1), model)
            places = np.flatnonzero(truth.ravel() < classes)
            if len(places) > PIXELS:
                places = np.random.default_rng(index).choice(places, PIXELS, replace=False)
            logits = keras.ops.convert_to_numpy(logits)[0].reshape(truth.size, -1)
            kept.append((logits[places], truth.ravel()[places]))
            bar.update(1)
    logits, labels = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return logits.astype(np.float64), labels.astype(int)


def _with_finite(logits):
    return logits, all_finite(logits)


def _loss(logits, labels, temperature):
    return float(-scipy.special.log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())


def _error(logits, labels, temperature):
    counts = CalibrationCounts(logits.shape[1])
    predicted = logits.argmax(axis=1)
    counts.add(labels, predicted, scipy.special.softmax(logits / temperature, axis=1).max(axis=1))
    return counts.calibration().expected_error
