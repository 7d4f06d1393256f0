"""The layer that normalises images inside the model and carries what a saved model must say about itself."""

import json
import numbers
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kseg.io.errors import InputError, check_divides, check_whole


def preprocess_layer(model):
    """Return the Preprocess layer of a model, or the first of the models nested in it; None where there is none."""
    own = next((layer for layer in model.layers if isinstance(layer, Preprocess)), None)
    nested = (preprocess_layer(layer) for layer in model.layers if isinstance(layer, keras.Model))
    return own or next(filter(None, nested), None)


@keras.saving.register_keras_serializable("kseg")
class Preprocess(keras.layers.Layer):
    """Normalises RGB 0..255 inside the model, and carries what a saved model must say about itself.

    Args: `mean`, `scale`: RGB in units of 0..255: output = (x - mean) / scale, computed in float32.
        `multiple`: height and width must be multiples of it. `size`: (height, width) it works at, None if free.
        `label_set`: dict of "name", "classes", "palette" (JSON values), or None. All can be set
        afterwards and are saved with the model.
    Call: uint8 or float (B, H, W, 3), RGB. Returns: the same shape in the layer's compute dtype.
    Raises: ValueError if mean or scale are not three numbers or a scale is not positive; for images whose height or
        width is known and is not a multiple.
    """

    def __init__(
        self,
        mean: Sequence[float],
        scale: Sequence[float],
        multiple: int = 1,
        label_set: dict[str, Any] | None = None,
        size: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        for values in (mean, scale):
            if not isinstance(values, (list, tuple)) or not all(isinstance(value, numbers.Real) for value in values):
                raise InputError(f"Preprocess needs 3 means and 3 positive scales (RGB), got {mean!r} and {scale!r}.")
        self.mean = tuple(float(value) for value in mean)
        self.scale = tuple(float(value) for value in scale)
        if len(self.mean) != 3 or len(self.scale) != 3 or min(self.scale) <= 0:
            raise InputError(f"Preprocess needs 3 means and 3 positive scales (RGB), got {self.mean} and {self.scale}.")
        check_whole("multiple", multiple, 1)
        self.multiple = int(multiple)
        if size is not None and not (isinstance(size, (list, tuple)) and len(size) == 2):
            raise InputError(f"size must be (height, width) in pixels, or None, got {size!r}.")
        for value in size or ():
            check_whole("size", value, 1)
        self.size = size and tuple(int(value) for value in size)
        self.label_set = label_set

    @property
    def label_set(self):
        return json.loads(self._label_set)

    @label_set.setter
    def label_set(self, value):
        self._label_set = json.dumps(value)  # as text, so that Keras does not wrap the dict in its tracking types

    def call(self, x):
        sizes = (size if isinstance(size, int) else None for size in x.shape[1:3])  # JAX traces free ones as symbols
        check_divides(*sizes, self.multiple)
        x = ops.cast(x, "float32")
        mean, scale = (ops.convert_to_tensor(values, dtype="float32") for values in (self.mean, self.scale))
        return ops.cast((x - mean) / scale, self.compute_dtype)

    def get_config(self):
        own = {name: getattr(self, name) for name in ("mean", "scale", "multiple", "label_set", "size")}
        return {**super().get_config(), **own}
