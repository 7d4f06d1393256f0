"""What a dataset's ids mean: names, colours, void, and the label sets that turn raw ids into training ids."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kseg.io.errors import InputError

IGNORE_LABEL = 255  # void in every training-id label map
INVALID_LABEL = 254  # a raw id that the dataset does not have, after the table: never a class, counted and reported
MAX_CLASSES = 254  # training ids 0..253 leave room for the two labels above

Colour = tuple[int, int, int]

_RENAMED = {"seed_r2unet": "fischer2021_r2unet"}  # label sets of records that are older than their name


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Training classes and the table that turns raw dataset ids into them: `label_set.table[raw_label]`.

    Args:
        name: as users call it ("train_ids").
        classes: class names; the position is the training id.
        palette: one RGB colour (0..255) per class.
        table: uint8 (256,), raw id -> training id, 255 (void) or 254 (an id that the dataset does not have).

    Raises:
        ValueError: the palette or the table does not fit the classes.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    table: np.ndarray

    def __post_init__(self):
        classes = tuple(str(c) for c in self.classes)
        palette = tuple(_colour(c) for c in self.palette)
        table = np.array(self.table)
        if not 1 <= len(classes) <= MAX_CLASSES:
            raise InputError(f"Label set {self.name}: there must be 1 to {MAX_CLASSES} classes, got {len(classes)}.")
        if len(palette) != len(classes):
            raise InputError(
                f"Label set {self.name}: one colour per class is needed, got {len(palette)} for {len(classes)} classes."
            )
        if table.shape != (256,) or table.dtype.kind not in "iu" or table.min() < 0 or table.max() > 255:
            raise InputError(f"Label set {self.name}: the table must be 256 values of 0..255, got shape {table.shape}.")
        used = {int(v) for v in table} - {IGNORE_LABEL, INVALID_LABEL}
        if used and max(used) >= len(classes):
            raise InputError(
                f"Label set {self.name}: the table gives {max(used)}, but there are {len(classes)} classes."
            )
        table = table.astype(np.uint8)
        table.setflags(write=False)
        for field, value in (("classes", classes), ("palette", palette), ("table", table)):
            object.__setattr__(self, field, value)

    def __eq__(self, other):
        return isinstance(other, LabelSet) and self.to_json() == other.to_json()

    def __hash__(self):
        return hash((self.name, self.classes))

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def raw_ids(self) -> list[list[int]]:
        """Return the dataset's own ids of each class."""
        return [np.flatnonzero(self.table == k).tolist() for k in range(self.num_classes)]

    def to_json(self) -> dict:
        """Return the label set as JSON types; `from_json` reads it back."""
        palette = [list(c) for c in self.palette]
        return {
            "name": self.name,
            "classes": list(self.classes),
            "palette": palette,
            "table": self.table.tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping) -> "LabelSet":
        """Return the label set that `to_json` wrote; ValueError if a key is missing."""
        _require(data, ("name", "classes", "palette", "table"), "A label set")
        return cls(data["name"], tuple(data["classes"]), tuple(data["palette"]), np.array(data["table"]))


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset's raw ids and its label sets.

    Args:
        name: "cityscapes", "camvid" or the name of a folder dataset.
        id_names: raw id -> name, for every id that a label file may hold.
        id_palette: raw id -> RGB colour.
        void_ids: raw ids that the training classes ignore (255 is one unless the dataset uses it as a class).
        label_sets: name -> LabelSet; "train_ids" is the default of every dataset.
    """

    name: str
    id_names: dict[int, str]
    id_palette: dict[int, Colour]
    void_ids: tuple[int, ...]
    label_sets: dict[str, LabelSet]

    def __post_init__(self):
        ids = set(self.id_names) | set(self.void_ids)
        if not all(0 <= i <= 255 for i in ids):
            raise InputError(f"Dataset {self.name}: raw ids must lie in 0..255, got {sorted(ids)}.")
        if "train_ids" not in self.label_sets:
            raise InputError(
                f'Dataset {self.name}: a label set "train_ids" is required, got {sorted(self.label_sets)}.'
            )

    def label_set(self, name: str | None = None) -> LabelSet:
        """Return the label set of that name (None: "train_ids"); ValueError if it is unknown."""
        if name is None:
            name = "train_ids"
        if not isinstance(name, str) or name not in self.label_sets:
            known = ", ".join(self.label_sets)
            raise InputError(f"Dataset {self.name} has no label set {name!r}. Choose one of: {known}.")
        return self.label_sets[name]

    @property
    def known_ids(self) -> frozenset[int]:
        """The raw ids that a label file of this dataset may hold."""
        return frozenset(self.id_names) | frozenset(self.void_ids)

    def to_json(self) -> dict:
        """Return everything as JSON types; `from_json` reads it back."""
        ids = sorted(self.known_ids)
        return {
            "name": self.name,
            "ids": [
                {
                    "id": i,
                    "name": self.id_names.get(i, "void"),
                    "color": list(self.id_palette.get(i, (0, 0, 0))),
                }
                for i in ids
            ],
            "void_ids": list(self.void_ids),
            "label_sets": [s.to_json() for s in self.label_sets.values()],
        }

    @classmethod
    def from_json(cls, data: Mapping) -> "DatasetInfo":
        """Return the info that `to_json` wrote; ValueError if a key is missing."""
        _require(data, ("name", "ids", "void_ids", "label_sets"), "A dataset description")
        for row in data["ids"]:
            _require(row, ("id", "name", "color"), "An id of a dataset description")
        sets = [LabelSet.from_json(s) for s in data["label_sets"]]
        return cls(
            name=data["name"],
            id_names={int(r["id"]): r["name"] for r in data["ids"]},
            id_palette={int(r["id"]): _colour(r["color"]) for r in data["ids"]},
            void_ids=tuple(int(i) for i in data["void_ids"]),
            label_sets={s.name: s for s in sets},
        )


def with_current_names(data: dict) -> dict:
    """Return a JSON object, a label set with an old name under its current one: an `object_hook` of json.loads."""
    name = data.get("name")
    if isinstance(name, str) and name in _RENAMED and "table" in data:
        return {**data, "name": _RENAMED[name]}
    return data


def label_set_of(name: str, ids: Sequence[int], classes: Sequence[str], palette: Iterable, void=()) -> LabelSet:
    """Return the label set in which raw id ids[k] is training id k; `void` and 255 are ignored.

    Args:
        name: of the label set.
        ids: raw ids in the order of their training ids; classes and palette: their names and RGB colours.
        void: raw ids to ignore. 255 is ignored too unless it is one of `ids`.
    """
    table = np.full(256, INVALID_LABEL)
    table[[IGNORE_LABEL, *void]] = IGNORE_LABEL
    table[list(ids)] = np.arange(len(ids))
    return LabelSet(name, tuple(classes), tuple(palette), table)


def _colour(value) -> Colour:
    colour = ()
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        colour = tuple(value)
    if len(colour) != 3 or not all(isinstance(v, int | np.integer) and 0 <= v <= 255 for v in colour):
        raise InputError(f"A colour is three whole numbers of 0..255 (red, green, blue), got {value!r}.")
    return tuple(int(v) for v in colour)


def _require(data, keys, what: str) -> None:
    missing = [k for k in keys if not isinstance(data, Mapping) or k not in data]
    if missing:
        raise InputError(f"{what} needs the keys {', '.join(keys)}; missing: {', '.join(missing)}.")
