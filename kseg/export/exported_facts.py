"""What an export says about its classes: names, colours, the dataset's own ids; and whether a model can be exported."""

import keras

import kseg
from kseg.export.checked_output import ALREADY
from kseg.inference.compatibility import check_outputs, noise, warn_of_probabilities
from kseg.inference.finite import first_not_finite
from kseg.inference.label_model import label_set_of
from kseg.inference.loading import as_model
from kseg.inference.logits import logits_at
from kseg.io.errors import InputError, NotFiniteError, is_whole
from kseg.layers.preprocessing import preprocess_layer


def carried(split):
    """Return what a model says about itself: name, classes, palette and ids of its label set, dataset and records."""
    facts = split.label_set.to_json()
    kept = {name: facts[name] for name in ("name", "classes", "palette")}
    manifest = split.manifest
    return {**kept, "ids": split.label_set.raw_ids(), "dataset": manifest.info.name, "records": manifest.digest}


def checked_model(model, label_set):
    """Return the model and what it says about its classes, ready to be exported.

    Args:
        model: keras.Model that gives logits, a run folder or a .keras file. label_set: dict of name, classes and
            palette, None: the model carries it.
    Returns:
        (keras.Model, dict)
    Raises:
        ValueError: no class names; no keras.Model. FloatingPointError: a weight is nan or infinite.
    """
    model = as_model(model)
    if not isinstance(model, keras.Model):
        raise InputError(ALREADY.format(model.reads or "ensemble", ""))
    check_outputs(model)
    if label_set is not None and not (isinstance(label_set, dict) and {"name", "classes", "palette"} <= set(label_set)):
        raise InputError(f"label_set must be a dict of name, classes and palette, got {label_set!r}.")
    carried = label_set_of(model)
    if label_set is not None:  # a model may have more outputs than the classes that it carries
        _check_label_set(label_set, len(carried["classes"]) if carried else model.output_shape[-1])
    if weight := first_not_finite(model.weights):
        raise NotFiniteError(
            f"The weight {weight} is not finite, so the model cannot give labels. Export weights of an earlier step."
        )
    label_set = label_set or carried
    if not label_set:
        raise InputError(
            "The model carries no class names. Give label_set={'name', 'classes', 'palette'}, as in classes.json "
            "of the SavedModel that its run wrote (WORKDIR/saved_model), or use that SavedModel."
        )
    layer = preprocess_layer(model)
    if layer or None not in model.input_shape[1:3]:  # otherwise nothing says which sizes the model takes
        warn_of_probabilities(model, logits_at(model, noise((64, 64)), 64, 64))
    facts = {
        **label_set,
        "ignore_label": 255,
        "size": getattr(layer, "size", None) or _fixed_size(model),
        "kseg_version": kseg.__version__,
    }
    return model, facts


def _fixed_size(model):
    """Return the (height, width) that a model takes alone, None if it takes others."""
    size = model.input_shape[1:3]
    return None if None in size else size


def _check_label_set(label_set, count):
    """Refuse names and colours that cannot be those of a model of so many classes."""
    classes = label_set["classes"]
    palette = label_set["palette"]
    named = isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
    if not named or len(classes) != count:
        raise InputError(f"label_set needs the names of the model's {count} classes, got {classes!r}.")
    drawn = isinstance(palette, (list, tuple)) and len(palette) == len(classes)
    if not drawn or not all(isinstance(c, (list, tuple)) and len(c) == 3 and all(map(_is_byte, c)) for c in palette):
        raise InputError(f"label_set needs a colour of three whole numbers of 0..255 for each class, got {palette!r}.")


def _is_byte(value):
    return is_whole(value) and 0 <= value <= 255
