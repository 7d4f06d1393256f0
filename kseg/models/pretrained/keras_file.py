"""Reads the arrays of a Keras weights file by layer and variable, whatever version of Keras wrote it."""

import os
import re

import h5py

from kseg.io.errors import InputError
from kseg.io.zips import MAX_UNPACKED

# Names of variables: today's, and those of the first published files ("block1_conv1_W_1:0").
_VARIABLES = {
    "kernel": r"(.*_W(_\d+)?|(depthwise_)?kernel)(:0)?",
    "bias": r"(.*_b(_\d+)?|bias)(:0)?",
    **{name: rf"{name}(:0)?" for name in ("gamma", "beta", "moving_mean", "moving_variance")},
}
_GROUPS = {"conv": "conv2d", "norm": "batch_normalization", "dense": "dense"}  # as `.weights.h5` calls them


def read_arrays(path):
    """Reads every array of an HDF5 file of weights.

    Args: `path`: of Keras' .h5 (weights or a whole model) or .weights.h5.
    Returns: (arrays, titles): dicts from the path in the file to the array, and from a group to the name it carries.
    Raises: ValueError if the file cannot be read.
    """
    try:
        with h5py.File(path) as file:
            arrays = {}
            titles = {}
            claimed = []
            most = max(os.path.getsize(path), MAX_UNPACKED)

            def visit(name, item):
                if isinstance(item, h5py.Dataset):
                    claimed.append(item.nbytes if item.size else 0)
                    if sum(claimed) > most:  # a few bytes can claim an array of any size
                        raise InputError(
                            f"{path} claims to hold {sum(claimed):,} bytes, but at most {most:,} are read."
                        )
                    arrays[name] = item[()]
                elif "name" in item.attrs:
                    titles[name] = item.attrs["name"]

            file.visititems(visit)
    except OSError as error:
        raise InputError(f"Cannot read {path} as HDF5: {error}. It is no HDF5 file, or incomplete.") from error
    return arrays, titles


def find_variables(arrays, titles, layers, *, in_order=False):
    """Where a file keeps the variables of layers.

    Args: `arrays`, `titles`: of `read_arrays`. `layers`: {name in the file: (kind, variables)}, kind being "conv",
        "norm" or "dense". `in_order`: where a .weights.h5 lacks the layers' names, take its groups in order: right
        for a plain chain of layers only.
    Returns: {layer: {variable: path}}; for what the file lacks, the path that it would have.
    """
    if any(re.search(r"/vars/\d+$", path) for path in arrays):
        groups = _groups(arrays, titles, layers, in_order)
        return {
            layer: {v: f"{groups[layer]}/vars/{i}" if layer in groups else f"{layer}/{v}" for i, v in enumerate(names)}
            for layer, (_, names) in layers.items()
        }
    paths = {}
    for path in arrays:
        if not path.startswith("optimizer_weights/"):
            for part in set(path.split("/")[:-1]):
                paths.setdefault(part, []).append(path)
    return {
        layer: {
            variable: _named(paths.get(_title(layer, paths), ()), variable, f"{layer}/{variable}", len(variables) == 1)
            for variable in variables
        }
        for layer, (_, variables) in layers.items()
    }


def find_in_order(path, layers, order):
    """Where an old file (.h5) keeps the variables of layers that it calls by other names: by its own order.

    Keras reads such files in this way: the n-th layer of the file that has weights is the n-th of the network.

    Args: `path`: of the file. `layers`: as in `find_variables`. `order`: names of all the network's layers that have
        weights, as Keras lists them.
    Returns: {layer: {variable: path}}, empty where the file tells no order or has another number of layers.
    """
    groups = []
    with h5py.File(path) as file:
        place = "model_weights" if "model_weights" in file else ""
        root = file[place] if place else file
        for name in map(_text, root.attrs.get("layer_names", ())):
            names = [_text(title) for title in root[name].attrs.get("weight_names", ())]
            if names:
                groups.append([f"{place}/{name}/{title}".removeprefix("/") for title in names])
    if len(groups) != len(order):
        return {}
    places = dict(zip(order, groups, strict=True))
    sizes = {layer: len(variables) for layer, (_, variables) in layers.items()}
    if any(len(places.get(layer, ())) != size for layer, size in sizes.items()):
        return {}
    return {layer: dict(zip(names, places[layer], strict=True)) for layer, (_, names) in layers.items()}


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _named(paths, variable, default, alone):
    """The path of a variable; `alone`: it is the only one of its layer, whatever the file calls it."""
    if alone and len(paths) == 1:
        return paths[0]
    pattern = re.compile(_VARIABLES.get(variable, re.escape(variable)))
    return next((path for path in paths if pattern.fullmatch(path.rpartition("/")[2])), default)


def _groups(arrays, titles, layers, in_order):
    """Keras 3's groups conv2d, conv2d_1, ... by the name of their layer, which they have as an attribute."""
    groups = [path[: -len("/vars/0")] for path in arrays if path.endswith("/vars/0")]
    named = {titles.get(f"{group}/vars", titles.get(group)): group for group in groups}
    if in_order:
        for kind, title in _GROUPS.items():
            wanted = [layer for layer, (of, _) in layers.items() if of == kind]
            if not any(layer in named for layer in wanted):
                matches = ((re.search(rf"(?:^|/){title}(?:_(\d+))?$", group), group) for group in groups)
                ordered = sorted((int(match[1] or 0), group) for match, group in matches if match)
                named.update(zip(wanted, (group for _, group in ordered), strict=False))
    titles_of = {layer: _title(layer, named) for layer in layers}
    return {layer: named[title] for layer, title in titles_of.items() if title in named}


def _title(layer, titles):
    """What a file calls a layer: its name, or for one that Keras counted ("add_3") the only such name in the file."""
    if layer in titles:
        return layer
    counted = [title for title in titles if title and re.fullmatch(rf"{re.escape(layer)}_\d+", title)]
    return counted[0] if len(counted) == 1 else layer
