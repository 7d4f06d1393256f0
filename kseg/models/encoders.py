"""VGG16 weights (Simonyan and Zisserman 2015) for encoders with layers `block{1..5}_conv{1..3}`."""

import logging
import os
import pathlib
import re

import h5py
import keras
import numpy as np

from kseg.models import torch_file

# Normalisation of torchvision's weights, and of a model without weights: RGB 0..255.
IMAGENET_MEAN = tuple(255 * value for value in (0.485, 0.456, 0.406))
IMAGENET_SCALE = tuple(255 * value for value in (0.229, 0.224, 0.225))
# Keras' own weights are Caffe's: BGR minus the mean, not scaled. Here in RGB order.
CAFFE_MEAN = (123.68, 116.779, 103.939)

VGG16_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
VGG16_MD5 = "6d6bbae143d832006294945121d1f1fc"
VGG16_URL = f"https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{VGG16_FILE}"

_CONVOLUTIONS = [f"block{block}_conv{i}" for block, count in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, count + 1)]
_TORCH_INDEX = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # of torchvision's `features`


def load_vgg16_weights(model, source):
    """Loads ImageNet weights into a model's 13 VGG16 convolutions and sets `preprocess` to what they expect.

    Kernels are put into RGB order: the first maps equal those of the network that the weights are from.

    Args: `model`: keras.Model of 64 base filters with layers `block{1..5}_conv{1..3}` and `preprocess`.
        `source`: "imagenet" (Keras' published file, downloaded once), or a path: Keras' VGG16 as .h5 or
        .weights.h5, or torchvision's as .pth.
    Returns: {"used": [...], "unused": [...]}: names of the file's arrays.
    Raises: ValueError that names arrays missing or of another shape; FileNotFoundError without the file.
    """
    path = _download() if source == "imagenet" else pathlib.Path(os.path.expanduser(source))
    if not path.is_file():
        raise FileNotFoundError(
            f"No encoder weights at {path}. Give 'imagenet', or VGG16 as Keras' .h5 or torchvision's .pth."
        )
    if path.suffix in (".pth", ".pt"):
        arrays, names = torch_file.read_state_dict(path), _torch_names()
        mean, scale = IMAGENET_MEAN, IMAGENET_SCALE
    else:
        arrays, names = _read_keras(path)
        mean, scale = CAFFE_MEAN, (1.0, 1.0, 1.0)
    values = _take(model, arrays, names, path)
    for layer, (kernel, bias) in values.items():
        if path.suffix in (".pth", ".pt"):
            kernel = kernel.transpose(2, 3, 1, 0)  # OIHW -> HWIO
        elif layer == _CONVOLUTIONS[0]:
            kernel = kernel[:, :, ::-1]  # BGR -> RGB
        model.get_layer(layer).set_weights([kernel, bias])
    preprocess = model.get_layer("preprocess")
    preprocess.mean, preprocess.scale = mean, scale
    used = [name for pair in names.values() for name in pair]
    unused = sorted(set(arrays) - set(used))
    logging.getLogger("kseg").info(
        "%d of %d encoder arrays from %s; unused: %s", len(used), 26, path, ", ".join(unused) or "none"
    )
    return {"used": used, "unused": unused}


def _download():
    """Keras' file in the Keras home, fetched on first use."""
    try:
        return pathlib.Path(keras.utils.get_file(VGG16_FILE, VGG16_URL, cache_subdir="models", file_hash=VGG16_MD5))
    except Exception as error:  # Keras raises plain Exception where the network fails
        home = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras")
        reason = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(
            f"Cannot download the encoder weights {VGG16_FILE} ({reason}).\n"
            f"Download {VGG16_URL} (md5 {VGG16_MD5}) where there is a network and put it at\n"
            f"{home / 'models' / VGG16_FILE}, or start with --encoder_weights=PATH (without weights: '')."
        ) from error


def _torch_names():
    return {
        layer: (f"features.{index}.weight", f"features.{index}.bias")
        for layer, index in zip(_CONVOLUTIONS, _TORCH_INDEX, strict=True)
    }


def _read_keras(path):
    """The arrays of a Keras weights file by path, and per convolution the paths of kernel and bias."""
    try:
        with h5py.File(path) as file:
            arrays, titles = {}, {}

            def visit(name, item):
                if isinstance(item, h5py.Dataset):
                    arrays[name] = item[()]
                elif "name" in item.attrs:
                    titles[name] = item.attrs["name"]

            file.visititems(visit)
    except OSError as error:
        raise ValueError(f"Cannot read {path} as HDF5: {error}. Is the download complete?") from error
    names = _names_by_class(arrays, titles) if any(re.search(r"/vars/\d+$", key) for key in arrays) else {}
    for layer in _CONVOLUTIONS:
        if layer in names:
            continue
        keys = [key for key in arrays if layer in key.split("/")]
        kernels = [key for key in keys if arrays[key].ndim == 4]
        biases = [key for key in keys if arrays[key].ndim == 1]
        names[layer] = (kernels + [f"{layer}/kernel"])[0], (biases + [f"{layer}/bias"])[0]
    return arrays, names


def _names_by_class(arrays, titles):
    """Keras 3's `.weights.h5`: groups conv2d, conv2d_1, ... with the layer's name as an attribute."""
    groups = sorted(
        {key[: -len("/vars/0")] for key in arrays if re.search(r"conv2d(_\d+)?/vars/0$", key)},
        key=lambda group: int(group.rpartition("conv2d")[2].lstrip("_") or 0),
    )
    named = {titles.get(f"{group}/vars", titles.get(group)): group for group in groups}
    if not set(_CONVOLUTIONS) <= set(named):
        named = dict(zip(_CONVOLUTIONS, groups, strict=False))  # VGG16 has no other convolutions: in order
    return {layer: (f"{group}/vars/0", f"{group}/vars/1") for layer, group in named.items() if layer in _CONVOLUTIONS}


def _take(model, arrays, names, path):
    """The arrays that the convolutions need; every one that is missing or unfit is named in one error."""
    problems, values = [], {}
    for layer in _CONVOLUTIONS:
        kernel, bias = (tuple(weight.shape) for weight in model.get_layer(layer).weights)
        if path.suffix in (".pth", ".pt"):
            kernel = tuple(np.array(kernel)[[3, 2, 0, 1]].tolist())  # HWIO -> OIHW, as the file has it
        for name, shape in zip(names[layer], (kernel, bias), strict=True):
            if name not in arrays:
                problems.append(f"{name} is missing")
            elif arrays[name].shape != shape:
                problems.append(f"{name} has shape {arrays[name].shape}, '{layer}' needs {shape}")
        values[layer] = [arrays.get(name) for name in names[layer]]
    if problems:
        raise ValueError(
            f"{path} does not fit the encoder (VGG16, base_filters=64): {'; '.join(problems)}. "
            "Give weights of VGG16, or build with base_filters=64."
        )
    return values
