"""Starting from another run: its weights are loaded into layers of the same name and shapes, whatever its classes."""

import keras

from kseg.inference.loading import load_model
from kseg.inference.model_paths import check_own_weights
from kseg.io.errors import InputError
from kseg.layers.preprocessing import preprocess_layer


def start_from(model, source):
    """Load into a model what fits it of another, by layers of the same name, and how its images are normalised.

    A layer fits if its weights have the same number, names and shapes; a layer that differs in any of these
    (the scores of another class count) starts from scratch.

    Args:
        model: keras.Model. source: a run folder (the weights it kept) or a .keras file.
    Returns:
        str: what was loaded, what starts from scratch and why, what of the source was not used.
    Raises:
        FileNotFoundError, ValueError: nothing there, no such file, or not a single layer that fits.
    """
    check_own_weights(source)
    other = load_model(source)
    theirs = {layer.name: layer for layer in other.layers if layer.weights}
    loaded = []
    anew = []
    for layer in model.layers:
        if not layer.weights:
            continue
        if layer.name not in theirs:
            anew.append(f"{layer.name} (not there)")
            continue
        ours = _shapes(layer)
        found = _shapes(theirs[layer.name])
        if ours == found:
            loaded.append(layer)
        else:
            anew.append(f"{layer.name} ({_difference(found, ours)})")
    if not loaded:
        raise InputError(
            f"init_from: no layer of {source} ({other.name}) has the name and shape of one of '{model.name}'. Build "
            "the same architecture with the same options."
        )
    for layer in loaded:
        for variable, value in zip(layer.weights, theirs[layer.name].weights, strict=True):
            variable.assign(keras.ops.convert_to_numpy(value))
    ours = preprocess_layer(model)
    found = preprocess_layer(other)
    if ours is not None and found is not None:  # the weights were trained on images normalised so
        ours.mean, ours.scale = found.mean, found.scale
    unused = [name for name in theirs if name not in {layer.name for layer in loaded}]
    return (
        f"Weights from {source}: {len(loaded)} of {len(loaded) + len(anew)} layers loaded; "
        f"starting from scratch: {', '.join(anew) or 'none'}; not used: {', '.join(unused) or 'none'}."
    )


def _shapes(layer):
    """Name and shape of each weight, in order. Paths tell nothing: Keras numbers unnamed layers through a process."""
    return [(weight.name, tuple(weight.shape)) for weight in layer.weights]


def _difference(found, ours):
    if len(found) != len(ours):
        return f"{len(found)} arrays there, {len(ours)} here"
    there, here = next((a, b) for a, b in zip(found, ours, strict=True) if a != b)
    return f"{there[0]} {there[1]} there, {here[0]} {here[1]} here"
