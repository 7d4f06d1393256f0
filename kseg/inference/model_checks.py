"""Whether models fit what is asked of them, as far as their files say it: judged before anything imports Keras."""

import json
import zipfile
from typing import Any, NamedTuple

from kseg.inference.looks import one_size_error
from kseg.inference.model_paths import weights_file
from kseg.inference.outside.file_kinds import KSEG, SEEDS, seed_runs
from kseg.inference.outside.map_files import check_label_maps
from kseg.io.errors import InputError
from kseg.io.zips import DAMAGED


class StoredModel(NamedTuple):
    """What the configuration in a .keras file says of its model.

    size: (height, width) of its images in pixels, None where it takes any. label_set: as in
    `kseg.layers.Preprocess`, None where it carries none.
    """

    name: str
    size: tuple[int | None, int | None]
    label_set: dict[str, Any] | None


def check_fit(described, scored, data_dir, class_map=None):
    """Refuse models whose classes, or label maps whose files, are not those of the images that are to be scored.

    Args:
        described: of `model_paths.described_models`. scored: the `Examples`, None where they are not known yet.
        data_dir: what messages call the records. class_map: as in `kseg.evaluate`.
    """
    if scored is None:
        return
    check_label_maps(described, scored.split)
    for one in described:
        if class_map is None and one.class_map is None:
            for stored in _stored_models(one):
                if stored.label_set:
                    check_known_classes(stored.label_set, scored.label_set, data_dir, one.file)


def check_scales(described, looks):
    """Refuse scales other than 1 for a described model that takes images of one size alone."""
    if looks.scales == (1.0,):
        return
    for one in described:
        for stored in _stored_models(one):
            if None not in stored.size:
                raise one_size_error(stored.name, *stored.size)


def check_known_classes(known, label_set, data, who="The model"):
    """Raise InputError unless the classes that a model carries are those of the label set.

    Args:
        known: dict of the model's label set. data: what messages call the records. who: what they call the model.
    """
    count = len(known["classes"])
    if count != label_set.num_classes:
        advice = f"Choose the label set that the model was trained on: {known['name']}"
        if known["name"] == label_set.name:
            more = ", ..." if count > 3 else ""
            advice = f"It was trained on others ({', '.join(known['classes'][:3])}{more}). Choose data of its classes"
        raise classes_error(who, count, label_set, data, advice)
    if list(known["classes"]) != list(label_set.classes):
        first = next((a, b) for a, b in zip(known["classes"], label_set.classes, strict=True) if a != b)
        raise InputError(
            f"{who}'s classes ({known['name']}) are not those of label set {label_set.name} of {data}: "
            f"{first[0]!r} against {first[1]!r} at the same id. Say by a map which class is which."
        )


def classes_error(who, count, label_set, data, advice):
    """Return the InputError for a model with another number of classes than the label set has."""
    return InputError(
        f"{who} has {count} classes, but label set {label_set.name} of {data} has {label_set.num_classes}. "
        f"{advice}; or say in a class map which class is which (docs/how-to/contestants.md)."
    )


def _stored_models(described):
    """Return the StoredModel of each .keras file that a described model is of, as far as it can be told."""
    if described.kind not in (KSEG, SEEDS):
        return []
    files = seed_runs(described.file) if described.kind == SEEDS else [described.file]
    return [stored for file in files if (stored := _stored(weights_file(file))) is not None]


def _stored(file):
    """Return the StoredModel of a .keras file; None where the file cannot say it: Keras judges that one."""
    try:
        with zipfile.ZipFile(file) as archive:
            config = json.loads(archive.read("config.json"))["config"]
        layers = config["layers"]
        size = tuple(layers[0]["config"]["batch_shape"][1:3])
        own = next(layer["config"] for layer in _with_nested(layers) if layer["registered_name"] == "kseg>Preprocess")
        return StoredModel(config["name"], size, own["label_set"])
    except (*DAMAGED, LookupError, TypeError, AttributeError, StopIteration):
        return None


def _with_nested(layers):
    """Give layers, and after them those of the models among them."""
    yield from layers
    for layer in layers:
        yield from _with_nested(layer["config"].get("layers", []))
