"""How often, and how, a model looks at an image: windows that slide over it, other scales, its mirror image."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from kseg.io.errors import InputError, check_whole

_LEAST_SCALE, _MOST_SCALE = 0.1, 10
ONE_MODEL = (
    "Disagreement is that of several models, but there is one. Give two or more, or the folder of a study's seeds."
)


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
                f"scales must be a list of numbers from {_LEAST_SCALE} to {_MOST_SCALE}, such as 0.75, 1 and 1.25, got "
                f"{_shown(scales)}."
            )
        if len(set(scales)) < len(scales):
            raise InputError(f"scales must differ, got {_shown(scales)}.")
        if not isinstance(self.flip, bool):
            raise InputError(f"flip must be True or False, got {self.flip!r}.")
        object.__setattr__(self, "scales", tuple(map(float, scales)))

    @property
    def single(self) -> bool:
        """Whether this is one look at the whole image as it is."""
        return self.tile is None and self.scales == (1.0,) and not self.flip


def one_size_error(name, height, width):
    """Return the InputError for scales other than 1 with a Keras model that takes images of one size."""
    return InputError(
        f"--scales other than 1 need a model of free size, but {name} takes images of {width}x{height} alone. Train "
        "one with --crop_height and --crop_width."
    )


def _shown(scales):
    """Return scales as both a command and Python may have them."""
    if not isinstance(scales, (tuple, list)):
        return repr(scales)
    return ", ".join(map(str, scales)) or "none"


def _is_scale(value):
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return number and _LEAST_SCALE <= value <= _MOST_SCALE


ONE_LOOK = Looks()
