"""What must hold between a model, its data and its settings, said in one line before anything is written."""

import keras

from kseg.prediction import SavedModel, label_set_of, preprocess_layer


def check_classes(model, label_set, data):
    """Raise ValueError if the model's classes are not those of the label set."""
    known, count = label_set_of(model), class_count(model)
    if count != label_set.num_classes:
        raise ValueError(
            f"The model has {count} classes, label set {label_set.name} of {data} has {label_set.num_classes}. "
            f"Choose the label set that the model was trained on{': ' + known['name'] if known else ''}."
        )
    if known and list(known["classes"]) != list(label_set.classes):
        first = next((a, b) for a, b in zip(known["classes"], label_set.classes, strict=True) if a != b)
        raise ValueError(
            f"The model's classes ({known['name']}) are not those of label set {label_set.name} of {data}: "
            f"{first[0]!r} against {first[1]!r} at the same id."
        )


def class_count(model):
    """Return how many classes a model gives."""
    return model.num_classes if isinstance(model, SavedModel) else model.output_shape[-1]


def check_input(model, size):
    """Raise ValueError unless a model that the user built takes images of `size`, (height, width) in pixels."""
    if not isinstance(model, keras.Model) or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError("The function must give a keras.Model of one input (images) and one output (logits).")
    wanted, layer = tuple(model.inputs[0].shape[1:3]), preprocess_layer(model)
    multiple = layer.multiple if layer else 1
    if any(a not in (None, b) or b % multiple for a, b in zip(wanted, size, strict=True)):
        raise ValueError(
            f"{model.name} takes images of {wanted} (height, width; multiples of {multiple}), the run's are {size}."
        )


def check_batch_norm(model, batch_size):
    """Raise ValueError if a layer (the pooled branch of ASPP) would normalise over a single value per channel."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    alone = [layer.name for layer in layers if tuple(layer.input.shape[1:-1]) in ((1, 1), ())]
    if batch_size == 1 and alone:
        raise ValueError(
            f"{model.name} needs a batch of at least 2 images: {alone[0]} normalises over the batch alone."
        )
