"""ImageNet weights for encoders: VGG16 (Simonyan and Zisserman 2015) and ResNet (He et al. 2016).

Layers have the names of keras.applications, and for FCN `fc6` and `fc7`, VGG16's dense layers as convolutions.
"""

import logging
import os
import pathlib

import keras
import numpy as np

from kseg.io.errors import InputError, MissingFileError
from kseg.models.pretrained import keras_file, torch_file

# Normalisation of torchvision's weights, and of a model without weights: RGB 0..255.
IMAGENET_MEAN = tuple(255 * value for value in (0.485, 0.456, 0.406))
IMAGENET_SCALE = tuple(255 * value for value in (0.229, 0.224, 0.225))
# Keras' own weights are Caffe's: BGR minus the mean, not scaled. Here in RGB order.
CAFFE_MEAN = (123.68, 116.779, 103.939)

_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
_VARIABLES = {
    "conv": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "norm": ("gamma", "beta", "moving_mean", "moving_variance"),
}


def _vgg16_layers():
    names = [f"block{block}_conv{i}" for block, count in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, count + 1)]
    features = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # of torchvision's `features`
    layers = {name: ("conv", name, f"features.{i}") for name, i in zip(names, features, strict=True)}
    return layers | {"fc6": ("dense", "fc1", "classifier.0"), "fc7": ("dense", "fc2", "classifier.3")}


def _resnet_layers(depths):
    names = {"conv1_conv": "conv", "conv1_bn": "norm"}
    for stage, depth in enumerate(depths, 2):
        for block in range(1, depth + 1):
            for i in range(0 if block == 1 else 1, 4):  # 0 is the projection of the shortcut
                names |= {f"conv{stage}_block{block}_{i}_{kind}": kind for kind in ("conv", "bn")}
    return {name: ("norm" if kind == "bn" else kind, name, None) for name, kind in names.items()}


# Layer of the model: (kind, layer of Keras' file, prefix in torchvision's or None), from the image on; the weights
# that Keras publishes, without and with the classifier; `chain`: each layer follows the one before it.
ARCHITECTURES = {
    "vgg16": {
        "layers": _vgg16_layers(),
        "files": {
            "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5": "6d6bbae143d832006294945121d1f1fc",
            "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5": "64373286793e3c8b2b4e3219cbf3544b",
        },
        "chain": True,
        "formats": "VGG16 as Keras' .h5 or torchvision's .pth",
    },
    "resnet50": {
        "layers": _resnet_layers((3, 4, 6, 3)),
        "files": {"resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5": "4d473c1dd8becc155b73f8504c6f6626"},
        "chain": False,
        "formats": "ResNet-50 as Keras' .h5",
    },
    "resnet101": {
        "layers": _resnet_layers((3, 4, 23, 3)),
        "files": {"resnet/resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5": "88cf7a10940856eca736dc7b7e228a21"},
        "chain": False,
        "formats": "ResNet-101 as Keras' .h5",
    },
}
_CLASSIFIER = ("fc6", "fc7")  # weights that a file may lack


def load_encoder_weights(model, architecture, source, *, keep_preprocess=False):
    """Loads ImageNet weights into a model's encoder and sets `preprocess` to what they expect.

    Kernels are put into RGB order: the first maps equal those of the network that the weights are from. VGG16's dense
    layers become the convolutions `fc6` and `fc7` where the model has them (Long et al. 2015, arXiv 1411.4038, 3.1).

    Args: `model`: keras.Model with `preprocess` and the layers of `ARCHITECTURES[architecture]`.
        `architecture`: "vgg16", "resnet50" or "resnet101". `source`: "imagenet" (Keras' published file, downloaded
        once), or a path: Keras' .h5 or .weights.h5, or for VGG16 torchvision's .pth.
        `keep_preprocess`: leave the model's own normalisation.
    Returns: {"used": [...], "unused": [...], "initial": [...]}: names of the file's arrays, and of those layers
        (`fc6`, `fc7`) that it has no weights for.
    Raises: ValueError that names arrays missing or of another shape; FileNotFoundError without the file.
    """
    if architecture not in ARCHITECTURES:
        raise InputError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {architecture!r}.")
    layers = _layers_of(model, architecture)
    path = _find(architecture, source, "fc6" in layers)
    torch = path.suffix in (".pth", ".pt")
    arrays, names = (_read_torch if torch else _read_keras)(path, architecture, layers)
    initial = [layer for layer in _CLASSIFIER if layer in layers and not set(names[layer].values()) & set(arrays)]
    total = sum(map(len, names.values()))
    names = {layer: variables for layer, variables in names.items() if layer not in initial}
    _check(model, architecture, names, arrays, path)
    for layer, variables in names.items():
        values = {variable: arrays[name] for variable, name in variables.items()}
        _assign(model.get_layer(layer), layers[layer][0], values, torch, first=layer == next(iter(layers)))
    if not keep_preprocess:
        preprocess = model.get_layer("preprocess")
        preprocess.mean = IMAGENET_MEAN if torch else CAFFE_MEAN
        preprocess.scale = IMAGENET_SCALE if torch else (1.0, 1.0, 1.0)
    used = [name for variables in names.values() for name in variables.values()]
    unused = sorted(set(arrays) - set(used))
    message = "%d of %d encoder arrays from %s; unused: %s"
    if initial:
        message += f"; not in the file and left at their initial values: {', '.join(initial)}"
    level = logging.WARNING if initial else logging.INFO
    logging.getLogger("kseg").log(level, message, len(used), total, path, ", ".join(unused) or "none")
    return {"used": used, "unused": unused, "initial": initial}


def encoder_layers(model):
    """The layers of a model that `load_encoder_weights` fills, from the image on.

    Batch norms that a model (SegNet) puts between VGG16's convolutions are not included.
    Returns: list of keras.layers.Layer. Raises: ValueError for a model without an encoder of `ARCHITECTURES`.
    """
    for architecture in ("vgg16", "resnet101", "resnet50"):  # ResNet-101 has all layers of ResNet-50
        try:
            return [model.get_layer(name) for name in _layers_of(model, architecture)]
        except InputError:
            continue
    raise InputError(
        f"Model '{model.name}' has no encoder ({', '.join(ARCHITECTURES)}) to freeze or to give its own learning rate. "
        "Leave freeze_encoder_epochs and encoder_lr_multiplier out."
    )


def _layers_of(model, architecture):
    """The part of the table that the model has: all of it, or all but VGG16's dense layers."""
    present = {layer.name for layer in model.layers}
    layers = ARCHITECTURES[architecture]["layers"]
    missing = [layer for layer in layers if layer not in present and layer not in _CLASSIFIER]
    if missing:
        raise InputError(
            f"Model '{model.name}' has no encoder {architecture}: it lacks {len(missing)} of its layers, "
            f"first '{missing[0]}'. Load weights of the encoder that it has."
        )
    return {layer: value for layer, value in layers.items() if layer in present}


def _find(architecture, source, classifier):
    table = ARCHITECTURES[architecture]
    if source == "imagenet":
        return _download(*list(table["files"].items())[-1 if classifier else 0])
    path = pathlib.Path(os.path.expanduser(source))
    if not path.is_file():
        raise MissingFileError(f"No encoder weights at {path}. Give 'imagenet', or {table['formats']}.")
    return path


def _download(place, md5):
    """Keras' file in the Keras home, fetched on first use."""
    url = f"{_URL}/{place}"
    name = place.rpartition("/")[2]
    try:
        return pathlib.Path(keras.utils.get_file(name, url, cache_subdir="models", file_hash=md5))
    except Exception as error:  # Keras raises plain Exception where the network fails
        home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
        reason = str(error).strip().partition("\n")[0]
        raise MissingFileError(
            f"Cannot download the encoder weights {name} ({reason}).\n"
            f"Download {url} (md5 {md5}) on a machine with a network and put it at\n"
            f"{home / 'models' / name}, or start with --encoder_weights=PATH (without weights: '')."
        ) from error


def _read_keras(path, architecture, layers):
    """The arrays of a file by name, and for each layer the names of its variables."""
    arrays, titles = keras_file.read_arrays(path)
    wanted = {source: (kind, _VARIABLES[kind]) for kind, source, _ in layers.values()}
    found = keras_file.find_variables(arrays, titles, wanted, in_order=ARCHITECTURES[architecture]["chain"])
    return arrays, {layer: found[source] for layer, (_, source, _) in layers.items()}


def _read_torch(path, architecture, layers):
    if None in (prefix for _, _, prefix in layers.values()):
        raise InputError(f"{architecture} takes no PyTorch weights, got {path}. Give {_formats(architecture)}.")
    names = {x: {"kernel": f"{prefix}.weight", "bias": f"{prefix}.bias"} for x, (_, _, prefix) in layers.items()}
    return torch_file.read_state_dict(path), names


def _formats(architecture):
    return ARCHITECTURES[architecture]["formats"]


def _file_shape(shape, kind, torch):
    """The shape that a file keeps a convolution's kernel (height, width, in, out) in."""
    height, width, channels, filters = shape
    if kind == "dense":
        flat = height * width * channels
        return (filters, flat) if torch else (flat, filters)
    return (filters, channels, height, width) if torch else shape


def _check(model, architecture, names, arrays, path):
    """Raises ValueError that names every array that is missing or unfit."""
    problems = []
    torch = path.suffix in (".pth", ".pt")
    for layer, variables in names.items():
        kind = ARCHITECTURES[architecture]["layers"][layer][0]
        shapes = {weight.name: tuple(weight.shape) for weight in model.get_layer(layer).weights}
        if set(shapes) != set(variables):
            problems.append(f"'{layer}' has {', '.join(shapes)}, the file {', '.join(variables)}")
            continue
        for variable, name in variables.items():
            needs = _file_shape(shapes[variable], kind, torch) if variable == "kernel" else shapes[variable]
            if name not in arrays:
                problems.append(f"{name} is missing")
            elif arrays[name].shape != needs:
                problems.append(f"{name} has shape {arrays[name].shape}, '{layer}' needs {needs}")
    if problems:
        raise InputError(
            f"{path} does not fit the encoder ({architecture}, base_filters=64): {'; '.join(problems)}. "
            f"Give {_formats(architecture)}, or build with base_filters=64."
        )


def _assign(layer, kind, values, torch, first):
    """Sets the variables of a layer; the first one's kernel comes to RGB order."""
    variables = {weight.name: weight for weight in layer.weights}
    kernel = values.get("kernel")
    if kernel is not None:
        height, width, channels, filters = variables["kernel"].shape
        if torch:  # flattened channels first, which for a convolution changes nothing
            kernel = kernel.reshape(filters, channels, height, width).transpose(2, 3, 1, 0)
        else:
            kernel = kernel.reshape(height, width, channels, filters)
            kernel = kernel[:, :, ::-1] if first else kernel  # BGR -> RGB
        values = {**values, "kernel": kernel}
    for name, value in values.items():
        variables[name].assign(np.ascontiguousarray(value))
