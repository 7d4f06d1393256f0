"""From the classes of a contestant to those of the data that it is scored on (`--map`)."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
import sys
from typing import Any

import numpy as np

from kseg.data.labels import IGNORE_LABEL, LabelSet
from kseg.io.errors import InputError
from kseg.io.files import StrPath, checked_path, reading
from kseg.io.text import first_names
from kseg.io.users_text import composed, users_json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NO_CLASS = IGNORE_LABEL  # a predicted id that is none of the data's classes: it counts as wrong
_SHOWN = 8
_MOST = 100  # characters of what a file holds in place of a class
_LOG = logging.getLogger("kseg")


def read_table(path, what):
    """Return the table of a TOML or JSON file (by its ending); InputError if it cannot be read or is no table."""
    path = pathlib.Path(checked_path(path, what))
    if path.suffix not in (".toml", ".json"):
        raise InputError(f"{what} must be a .toml or .json file, got {path}.")
    with reading(path):
        content = path.read_bytes()
    parse = {".json": users_json, ".toml": tomllib.loads}[path.suffix]
    try:
        table = parse(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # of JSON, TOML and UTF-8
        raise InputError(f"{path} is not {path.suffix[1:].upper()}: {error}.") from error
    if not isinstance(table, dict):
        raise InputError(f"{path} must hold a table, got {type(table).__name__}.")
    return table


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """Which class of the data each class of a contestant is; "" is none of them.

    pairs: name or id (as text) of a contestant's class -> name of a class of the data. where: names it in errors.
    """

    pairs: dict[str, str]
    where: str

    @classmethod
    def of(cls, table: Any, where: str) -> ClassMap:
        """The map that a table says; InputError for one that cannot be."""
        if not table or not all(isinstance(value, str) for value in table.values()):
            wrong = next(
                (f"{key} = {value!r}" for key, value in table.items() if not isinstance(value, str)), "nothing"
            )
            raise InputError(
                f'{where} must map classes of the contestant to classes of the data, such as {{"wall" = "Building"}}, '
                f'with "" for none, got {wrong if len(wrong) <= _MOST else wrong[:_MOST] + " ..."}.'
            )
        return cls({composed(str(key)): composed(value) for key, value in table.items()}, where)

    @classmethod
    def read(cls, path: StrPath) -> ClassMap:
        """The map of a .toml or .json file."""
        return cls.of(read_table(path, "The map"), f"The map {path}")

    def ids(self, names: dict[int, str], label_set: LabelSet) -> np.ndarray:
        """Return the table uint8 (256,) from a contestant's ids to training ids; what is mapped to none is NO_CLASS.

        Ids that the map does not name are NO_CLASS too: never void, or a contestant could leave out what is difficult.

        Args:
            names: {id: name} of the contestant's classes; None: the map's keys are ids. label_set: of the data.
        Raises:
            InputError: a key that is no class of the contestant, one that is there twice, a value that is no class of
                the data.
        """
        if names is None:
            names = {}
        by_name = {}
        for number, name in names.items():
            by_name.setdefault(composed(name), []).append(number)
        classes = list(map(composed, label_set.classes))
        table = np.full(256, NO_CLASS, np.uint8)
        known = set()
        for key, value in self.pairs.items():
            numbers = by_name.get(key) or self._number(key, names)
            if known & set(numbers):
                raise InputError(f"{self.where} names the class {key} twice, by its name and by its id.")
            known |= set(numbers)
            if value and value not in classes:
                raise InputError(
                    f"{self.where} maps {key} to {value!r}, which is no class of label set {label_set.name}. It has "
                    f'{", ".join(label_set.classes)}; "" is none of them.'
                )
            if value:
                table[list(numbers)] = classes.index(value)
        self._say(names, known, table, label_set)
        return table

    def _number(self, key, names):
        number = int(key) if key.isascii() and key.isdecimal() and len(key) <= 3 else -1
        if number in names or (not names and 0 <= number <= 255):
            return [number]
        classes = "ids of 0..255, for its classes have no names"
        if names:
            classes = ", ".join(names.values())
        raise InputError(f"{self.where} maps {key!r}, which is no class of the contestant. It has {classes}.")

    def _say(self, names, known, table, label_set):
        """Log what is easily overlooked: classes that count as wrong wherever they are predicted, and those without."""
        wrong = [name for number, name in names.items() if table[number] == NO_CLASS]
        if wrong:
            unnamed = len([number for number in names if number not in known])
            left_out = f" ({unnamed} of these classes the map does not name)" if unnamed else ""
            _LOG.info("%s: predicting %s counts as wrong%s.", self.where, first_names(wrong, _SHOWN), left_out)
        reached = set(table[table != NO_CLASS].tolist())
        never = [name for number, name in enumerate(label_set.classes) if number not in reached]
        if never:
            _LOG.info("%s: no class becomes %s, so its IoU is 0.", self.where, first_names(never, _SHOWN))
