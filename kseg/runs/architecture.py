"""What a model of a user's own function is made of: whether it is still the one that a run began with."""

import itertools
import json

# Keras numbers unnamed layers through the whole process and draws seeds; a checkpoint replaces initial weights.
_LEFT_OUT = ("name", "seed", "build_config", "compile_config")
_NAMING = ("keras_history", "input_layers", "output_layers")  # where a configuration names other layers
_SHOWN = 80  # characters of a value


def architecture(model):
    """Return what a keras.Model is made of, without its weights, as JSON types.

    Returns:
        list of dicts, one for each layer: `name`, for messages alone; `class`; `settings`, its configuration;
        `weights`, their shapes; `inputs`, what it is called on, by the places of layers. None where Keras cannot tell.
    """
    import keras  # here, for who only compares needs none

    try:
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))["config"]
    except (TypeError, ValueError, NotImplementedError, AttributeError, LookupError, RuntimeError):
        return None  # a layer of the user's without a configuration: saving it says so
    whole = {"class_name": type(model).__name__, "name": model.name, "config": config}
    layers = config.get("layers", [whole])
    places = {}
    _number(layers, places)
    shapes = {layer.name: [list(weight.shape) for weight in layer.weights] for layer in (*model.layers, model)}
    rows = []
    for layer in layers:
        name = _name(layer)
        row = {
            "name": name,
            "class": layer["class_name"],
            "settings": _plain(layer["config"], places),
            "weights": shapes.get(name, []),  # an operation that is no layer has none
            "inputs": _plain(layer.get("inbound_nodes", []), places),
        }
        rows.append(row)
    return rows


def difference(before, now):
    """Return the first difference of two architectures in words, or None.

    A setting of a layer that only one of them has is none: another version of Keras may have added it.
    """
    for row, other in itertools.zip_longest(before, now):
        if row is None or other is None:
            one = row or other
            return f"layer '{one['name']}' ({one['class']}) is {'new' if row is None else 'gone'}"
        if row["class"] != other["class"]:
            return f"layer '{other['name']}' was {row['class']}, is {other['class']}"
        for name in row["settings"]:
            found = other["settings"].get(name, row["settings"][name])
            if found != row["settings"][name]:
                return _changed(other, name, row["settings"][name], found)
        for name in ("weights", "inputs"):
            if row[name] != other[name]:
                return _changed(other, f"shapes of {name}" if name == "weights" else name, row[name], other[name])
    return None


def _changed(layer, what, before, now):
    shown = [text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..." for text in map(json.dumps, (before, now))]
    values = f"was {shown[0]}, is {shown[1]}" if shown[0] != shown[1] else "changed"
    return f"{what} of layer '{layer['name']}' ({layer['class']}) {values}"


def _name(layer):
    return layer.get("name") or layer["config"].get("name", layer["class_name"])


def _number(layers, places):
    """Give each layer, those of nested models too, the number of its place: {name: number}."""
    for layer in layers:
        places.setdefault(_name(layer), len(places))
        _number(layer["config"].get("layers", []), places)


def _plain(value, places, naming=False):
    """Return a configuration without what may differ between two builds of one model."""
    if isinstance(value, list):
        return [_plain(part, places, naming) for part in value]
    if not isinstance(value, dict):
        return places.get(value, value) if naming and isinstance(value, str) else value
    if value.get("class_name") == "DTypePolicy":
        return value["config"]["name"]
    kept = [name for name in value if name not in _LEFT_OUT and not name.endswith("_initializer")]
    return {name: _plain(value[name], places, naming or name in _NAMING) for name in kept}
