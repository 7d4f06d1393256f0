"""Errors that name the weight or the image that is nan or infinite: it never becomes a score or a label."""

import keras
import numpy as np
from keras import ops

from kseg.io.errors import NotFiniteError


def all_finite(values):
    """Whether each image's values are finite: (B, ...) -> bool (B,)."""
    return ops.all(ops.isfinite(values), axis=tuple(range(1, len(values.shape))))


def first_not_finite(variables):
    """Return the path of the first variable that is not finite everywhere, or None."""
    for variable in variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            return getattr(variable, "path", variable.name)  # a tf.Variable has a name alone
    return None


def check_logits(finite, names, model):
    """Raise NotFiniteError that names the first image whose logits are not finite.

    Args:
        finite: bool (B,), whether all logits of an image are. names: what to call the B images ("image 3").
        model: what gave them; the error says which weight is to blame.
    """
    finite = np.asarray(finite)
    if finite.all():
        return
    weight = first_not_finite(model.weights)
    cause = "its weights are finite, but too large for its arithmetic"
    if weight:
        cause = f"its weight {weight} is not finite"
    raise NotFiniteError(
        f"The model's scores for {names[int(np.argmin(finite))]} are not finite: {cause}. Use the weights of an "
        "earlier step, or train again with a lower learning rate."
    )


def image_names(names, first, count):
    """Return what errors call the `count` images from number `first` on: by `names` if there are any, else numbers."""
    numbers = range(first, first + count)
    if names:
        return [f"image {names[i]}" for i in numbers]
    return [f"image {i} (counted from 0)" for i in numbers]
