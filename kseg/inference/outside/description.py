"""What a model from outside cannot say itself: a small TOML or JSON file beside it, or one that names it.

Nothing is guessed: what the file does not show and the description does not say is asked for.
"""

import dataclasses
import os
import pathlib
from typing import Any

from kseg.data.datasets import WITH_CLASSES, info_of
from kseg.data.labels import IGNORE_LABEL, LabelSet
from kseg.inference.outside.class_map import ClassMap, read_table
from kseg.inference.outside.file_kinds import DESCRIPTION, KSEG, LABEL_MAPS, kind_of, model_in
from kseg.io.errors import InputError, MissingFileError, is_whole
from kseg.runs.workdir import FLAGS_FILE

RANGES = {"0..255": (1.0, 0.0), "0..1": (1 / 255, 0.0), "-1..1": (2 / 255, -1.0)}  # factor, shift of a pixel's value
LAYOUTS = ("NHWC", "NCHW")
ORDERS = ("RGB", "BGR")
IDS = ("own", "training")
_OF_ALL = ("file", "map")
_OF_MAPS = (*_OF_ALL, "classes", "ids")
_OF_MODELS = (*_OF_ALL, "classes", "channels", "range", "mean", "std", "layout", "size", "output", "output_layout")


@dataclasses.dataclass(frozen=True)
class Description:
    """A contestant as its description says it; docs/how-to/contestants.md explains each key.

    path: of the description, None where there is none. file: what it describes. kind: of `file_kinds.kind_of`.
    names: {id: name} of its classes, None: not said. label_set: the LabelSet that `classes` names, None: it names none.
    class_map: ClassMap or None. map_file: of it, where it is a file. keys: all other keys, as they are written.
    """

    path: pathlib.Path | None
    file: pathlib.Path
    kind: str
    names: dict[int, str] | None = None
    label_set: LabelSet | None = None
    class_map: ClassMap | None = None
    map_file: pathlib.Path | None = None
    keys: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def files(self) -> list[pathlib.Path]:
        """The paths that are read for it."""
        return [path for path in (self.path, self.file, self.map_file) if path is not None]

    def missing(self, asked: list[tuple[str, str, str]]) -> InputError:
        """Return the InputError that says which keys are missing, why they are needed, and what to write where.

        asked: (key, why, example) of each.
        """
        place = self.path or f"{self.file}.toml, beside it"
        lines = [f"    {key} = {example}    # {why}" for key, why, example in asked]
        return InputError("\n".join([f"{self.file} does not show all that must be known. Add to {place}:", *lines]))


def describe_file(path):
    """Return the Description of what a user called a model: a description that names a file, or the file itself.

    The description of FILE lies beside it as FILE.toml. One that lies elsewhere names it, and may be JSON.

    Args:
        path: of something that exists.
    Raises:
        InputError: a description that cannot be, or that describes nothing.
    """
    path = pathlib.Path(path)
    if kind_of(path) != DESCRIPTION:
        beside = path.parent / f"{path.name}.toml"
        if not beside.is_file():
            return Description(None, model_in(path), kind_of(path))
        table = read_table(beside, "The description of a contestant")
        if not os.path.samefile(path, _file(beside, table)):
            raise InputError(f"{beside} must describe {path}, beside which it lies, but its key file names another.")
        return _described(beside, path, table)
    table = read_table(path, "The description of a contestant")
    return _described(path, _file(path, table), table)


def _file(path, table):
    """Return the path that a description is of: its key file, from its own folder; else its name without the ending."""
    file = table.get("file", path.stem)
    if not isinstance(file, str) or not file or "\0" in file:
        raise InputError(f"{path}: file must be the path of the contestant, got {file!r}.")
    file = path.parent / os.path.expanduser(file)
    if not file.exists():
        if "file" not in table and (path.parent / FLAGS_FILE).exists():
            raise InputError(f"{path} is a file of a run, and no model. Give the folder of the run, {path.parent}.")
        raise MissingFileError(f"{path} describes {file}, which is not there. Its key file must say where it is.")
    return file


def _described(path, file, table):
    kind = kind_of(file)
    file = model_in(file)
    if kind == DESCRIPTION:
        raise InputError(f"{path} describes {file}, which is a description itself. Name the model.")
    _check_keys(path, kind, table)
    names, label_set = _classes(path, kind, table)
    class_map, map_file = _map(path, table)
    keys = {key: value for key, value in table.items() if key not in ("file", "map", "classes")}
    return Description(path, file, kind, names, label_set, class_map, map_file, keys)


def _check_keys(path, kind, table):
    known = {KSEG: _OF_ALL, LABEL_MAPS: _OF_MAPS}.get(kind, _OF_MODELS)
    unknown = [key for key in table if key not in known]
    if unknown:
        what = kind
        if kind == KSEG:
            what = "a run or .keras file (or a file of another format that is damaged)"
        raise InputError(f"{path} describes {what}, which has no key {unknown[0]!r}. Known are {', '.join(known)}.")
    for key, values in (("channels", ORDERS), ("range", tuple(RANGES)), ("layout", LAYOUTS), ("ids", IDS)):
        _check_one_of(path, table, key, values)
    _check_one_of(path, table, "output_layout", LAYOUTS)
    for key in ("mean", "std"):
        value = table.get(key, [1, 1, 1])
        if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
            raise InputError(f"{path}: {key} must be three numbers, one for each channel, got {value!r}.")
    if 0 in table.get("std", ()):
        raise InputError(f"{path}: std is divided by, so it must not hold 0.")
    size = table.get("size", [1, 1])
    if not isinstance(size, list) or len(size) != 2 or not all(is_whole(side) and 0 < side < 2**15 for side in size):
        raise InputError(f"{path}: size must be [height, width] in pixels, got {size!r}.")
    if not isinstance(table.get("output", ""), str):
        raise InputError(f"{path}: output must be the name of an output, got {table['output']!r}.")


def _check_one_of(path, table, key, values):
    if key in table and table[key] not in values:
        raise InputError(f"{path}: {key} must be one of {', '.join(values)}, got {table[key]!r}.")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def _classes(path, kind, table):
    """Return ({id: name} or None, LabelSet or None) of the key classes."""
    value = table.get("classes")
    if value is None:
        return None, None
    if isinstance(value, str):
        return _classes_of_dataset(path, kind, table, value)
    if "ids" in table:
        raise InputError(f"{path}: ids says which ids of a dataset are meant, but classes lists them. Leave out one.")
    if isinstance(value, list):
        value = {str(number): name for number, name in enumerate(value)}
    fits = isinstance(value, dict) and len(value) > 1
    if not fits or not all(isinstance(name, str) and name and _is_id(number) for number, name in value.items()):
        raise InputError(
            f'{path}: classes must be the name of a dataset ("cityscapes"), the names of all classes in the order of '
            f'their ids, or a table of ids and names ({{"7" = "road"}}), at least two, got {table["classes"]!r}.'
        )
    names = {int(number): name for number, name in value.items()}
    if len(names) < len(value) or len(set(names.values())) < len(names):
        raise InputError(f"{path}: every id and every name of classes must be there once.")
    return names, None


def _is_id(text):
    return text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) <= 254


def _classes_of_dataset(path, kind, table, value):
    dataset, _, name = value.partition("/")
    if dataset not in WITH_CLASSES:
        raise InputError(
            f"{path}: classes must be the name of a dataset ({', '.join(WITH_CLASSES)}) or a list of names, got "
            f"{value!r}."
        )
    info = info_of(dataset)
    label_set = info.label_set(name or None)
    if kind == LABEL_MAPS and table.get("ids", "own") == "own":
        return {number: text for number, text in info.id_names.items() if number != IGNORE_LABEL}, None
    return dict(enumerate(label_set.classes)), label_set


def _map(path, table):
    """Return (ClassMap or None, the file that it is in or None) of the key map."""
    value = table.get("map")
    if value is None:
        return None, None
    if isinstance(value, dict):
        return ClassMap.of(value, f"The map in {path}"), None
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"{path}: map must be a table, or the path of a .toml or .json file, got {value!r}.")
    file = path.parent / os.path.expanduser(value)
    return ClassMap.read(file), file
