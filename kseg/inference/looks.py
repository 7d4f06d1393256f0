"""Probabilities of an image from several looks at it: windows that slide over it, other scales, its mirror image."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from keras import ops

from kseg.inference import windows
from kseg.inference.compatibility import class_count
from kseg.inference.finite import all_finite, check_logits
from kseg.inference.label_model import LabelModel
from kseg.inference.loading import as_model, label_set_of
from kseg.inference.logits import logits_at
from kseg.inference.predictor import compiled_for
from kseg.inference.resizing import at_label_size
from kseg.io.errors import InputError, check_whole
from kseg.layers.preprocessing import preprocess_layer

_LEAST_SCALE, _MOST_SCALE = 0.1, 10


@dataclasses.dataclass(frozen=True)
class Looks:
    """How often, and how, a model looks at an image. The probabilities of all looks are averaged.

    Args:
        tile: side in pixels of square windows that slide over the image by half a side and are blended with Gaussian
            weights (`kseg.inference.windows`); None: the whole image at once. Each window is predicted as an image of
            its own, so memory grows with the image's shorter side alone.
        scales: factors by which the image (or window) is resized before the model sees it.
        flip: look at the mirror image too.
    Raises:
        InputError: another value.
    """

    tile: int | None = None
    scales: Sequence[float] = (1.0,)
    flip: bool = False

    def __post_init__(self):
        if self.tile is not None:
            check_whole("tile", self.tile, 32)
        scales = self.scales
        if not isinstance(scales, (tuple, list)) or not scales or not all(map(_is_scale, scales)):
            raise InputError(
                f"scales must be a list of numbers from {_LEAST_SCALE} to {_MOST_SCALE}, such as (0.75, 1, 1.25), got "
                f"{scales!r}."
            )
        if len(set(scales)) < len(scales):
            raise InputError(f"scales must differ, got {scales!r}.")
        if not isinstance(self.flip, bool):
            raise InputError(f"flip must be True or False, got {self.flip!r}.")
        object.__setattr__(self, "scales", tuple(map(float, scales)))

    @property
    def single(self) -> bool:
        """Whether this is one look at the whole image as it is."""
        return self.tile is None and self.scales == (1.0,) and not self.flip


def _is_scale(value):
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return number and _LEAST_SCALE <= value <= _MOST_SCALE


ONE_LOOK = Looks()


def looking(model, looks):
    """Return a model, or the path of one, as it is; as an AveragingModel where it is to look more than once."""
    if looks.single:
        return model
    return AveragingModel(as_model(model), looks)


class AveragingModel(LabelModel):
    """A model that looks at each image several times; it predicts and evaluates as the model itself does.

    Args:
        model: keras.Model that gives logits. looks: Looks.
    Raises:
        InputError: a model that gives label maps and no logits, one of a fixed size with other scales than 1, a tile
            that is too small for the model.
    """

    def __init__(self, model, looks):
        if isinstance(model, LabelModel):
            raise InputError(
                "tile, scales, flip and confidence need the probabilities of a run or a .keras file. This model gives "
                f"label maps ({model.reads or 'an export'}). Give the run."
            )
        self._model = model
        self._looks = looks
        layer = preprocess_layer(model)
        multiple = layer.multiple if layer else 1
        if looks.tile is not None and looks.tile < 2 * multiple:
            raise InputError(f"tile must be at least {2 * multiple} for {model.name}, got {looks.tile}.")
        if None not in model.input_shape[1:3] and looks.scales != (1.0,):
            size = "x".join(map(str, model.input_shape[1:3]))
            raise InputError(
                f"scales other than 1 need a model of free size, but {model.name} takes images of {size} alone."
            )
        if looks.tile is not None:
            self._step = windows.step_of(looks.tile, multiple)
        self._runs = [
            compiled_for(model, f"probabilities at scale {scale}", _probabilities_of(model, scale))
            for scale in looks.scales
        ]
        self.label_set = label_set_of(model)
        self.num_classes = class_count(model)
        self.reads = f"mean of looks: {looks}"

    @property
    def weights(self):
        """Those of the model."""
        return self._model.weights

    def predict(self, images, height, width, names):
        return self.predict_with_confidence(images, height, width, names)[0]

    def predict_with_confidence(self, images, height, width, names):
        if self._looks.tile is None or max(images.shape[1:3]) <= self._looks.tile:
            probabilities = self._probabilities(images, names)
            labels = probabilities.argmax(-1).astype(np.uint8)
            confidence = probabilities.max(-1)
        else:
            labels = np.empty(images.shape[:3], np.uint8)
            confidence = np.empty(images.shape[:3], np.float32)
            for i, name in enumerate(names):
                self._slide(images[i], name, labels[i], confidence[i])
        return at_label_size(labels, height, width), at_label_size(confidence, height, width)

    def labels_and_confidence(self, image, name):
        """Label an image, uint8 (H, W, 3): class ids uint8 (H, W), and their probabilities float32 (H, W)."""
        labels, confidence = self.predict_with_confidence(image[None], *image.shape[:2], [name])
        return labels[0], confidence[0]

    def _slide(self, image, name, labels, confidence):
        """Fill in class ids and their probabilities; windows' bands lie across the longer side, so they are short."""
        wide = image.shape[1] > image.shape[0]
        if wide:
            labels = labels.T
            confidence = confidence.T

        def window(rows, columns):
            if wide:
                return self._probabilities(image[columns, rows][None], [name])[0].swapaxes(0, 1)
            return self._probabilities(image[rows, columns][None], [name])[0]

        bands = windows.slide(*labels.shape, self._looks.tile, self._step, self.num_classes, window)
        for rows, band in bands:
            labels[rows] = band.argmax(-1)
            confidence[rows] = band.max(-1)

    def _probabilities(self, images, names):
        """Average the looks at images or windows (B, H, W, 3): float32 (B, H, W, C)."""
        total = 0
        for run in self._runs:
            for mirrored in (False, True)[: 1 + self._looks.flip]:
                seen = images[:, :, ::-1] if mirrored else images
                found, finite = run(np.ascontiguousarray(seen), *images.shape[1:3])
                check_logits(finite, names, self._model)
                found = np.asarray(found)
                total = total + (found[:, :, ::-1] if mirrored else found)
        return total / (len(self._runs) * (1 + self._looks.flip))


def _probabilities_of(model, scale):
    """Return a function of images, height and width: probabilities of that size, and whether the logits are finite."""

    def run(images, height, width):
        logits = logits_at(model, images, height, width, scale)
        return ops.softmax(logits, axis=-1), all_finite(logits)

    return run
