"""A folder of predicted label maps as a contestant: any tool's, as PNG files named like the images."""

import numpy as np

from kseg.data.datasets.listing import read_bytes
from kseg.data.labels import IGNORE_LABEL, INVALID_LABEL
from kseg.inference.finite import image_names
from kseg.inference.label_marks import mark_of
from kseg.inference.label_model import LabelModel
from kseg.inference.outside.class_map import NO_CLASS
from kseg.inference.outside.map_files import SHOWN, files_of_split
from kseg.io.errors import InputError
from kseg.io.images import decode_label, header
from kseg.io.text import count_text, first_names, size_text

_NO_COLOURS = "write label ids, not colours"


class PredictedMaps(LabelModel):
    """NAME.png for every image of a split, of the label's size, holding ids.

    The ids are the data's own unless the files themselves say that they are training ids, as those that `predict`
    wrote, or the description says so, or lists the classes of another set, which a map joins. Of the data's own ids
    those that are void, and 255 among training ids, are no class: they count as wrong.

    Args:
        description: `description.Description` of the folder.
    """

    def __init__(self, description):
        self._described = description
        self._folder = description.file
        self.reads = "label maps"

    def predict(self, images, height, width, names):
        raise InputError(
            f"{self._folder} is a folder of label maps: it has predictions of its own images alone. Score it on a "
            "record folder, whose images' names they have; a model is needed for anything else."
        )

    def of_split(self, split, label_set, class_map):
        """Return the contestant of a split, all of whose files fit: it predicts the split's images by their names.

        Args:
            split: of a manifest. label_set: LabelSet to score. class_map: ClassMap or
                None.
        Raises:
            InputError: with every kind of problem: files that are missing or belong to no image, damaged ones, other
                sizes than the labels', ids that the contestant does not have; ids that could be the data's own or
                training ids.
        """
        paths = files_of_split(self._folder, split)
        ids = self._described.keys.get("ids") or self._ids_in(paths)
        table = self._table(label_set, class_map, ids)
        doubtful = ()
        if self._is_doubtful(label_set, class_map, ids):
            doubtful = {*range(label_set.num_classes), IGNORE_LABEL}
        self._check(split, paths, table, doubtful)
        called = image_names(split.names, 0, len(split.names))
        return _MapsOfSplit(dict(zip(called, paths, strict=True)), table, label_set, self.reads)

    def _ids_in(self, paths):
        """Return what the files themselves say of their ids, "own" or "training"; None where one says nothing."""
        found = set()
        for path in paths:
            mark = mark_of(read_bytes(path))
            if mark is None:
                return None
            found.add("training" if mark == "train" else "own")
        if len(found) > 1:
            raise InputError(
                f"{self._folder} holds label maps of training ids and of the dataset's own. Write them again, all of "
                "one kind."
            )
        return found.pop()

    def _table(self, label_set, class_map, ids):
        """Return the table int (256,) from the files' ids to training ids, -1 for an id that must not be there."""
        if ids == "training" and self._described.names is None:
            names = dict(enumerate(label_set.classes))
        else:
            names = self._described.names
        table = np.full(256, -1)
        if class_map is not None:
            ids = class_map.ids(names, label_set)
            known = list(names) if names is not None else range(256)
            table[known] = ids[known]
            table[IGNORE_LABEL] = NO_CLASS
        elif self._described.names is not None:
            table[: len(names)] = self._same_names(names, label_set)
            table[IGNORE_LABEL] = NO_CLASS
        elif names is not None:
            table[: len(names)] = np.arange(len(names))
            table[IGNORE_LABEL] = NO_CLASS
        else:
            own = label_set.table.astype(int)
            table = np.where(own == INVALID_LABEL, -1, np.where(own == IGNORE_LABEL, NO_CLASS, own))
        return table

    def _same_names(self, names, label_set):
        if names != dict(enumerate(label_set.classes)):
            raise InputError(
                f"The classes of {self._folder} must be those of label set {label_set.name} ("
                f"{', '.join(label_set.classes)}), but its description lists {', '.join(names.values())}. Say by a map "
                "which class is which."
            )
        return np.arange(len(names))

    def _is_doubtful(self, label_set, class_map, ids):
        """Whether training ids in the files would be read as other classes, and nobody said which ids they hold."""
        said = ids or self._described.names or class_map
        return not said and (label_set.table[: label_set.num_classes] != np.arange(label_set.num_classes)).any()

    def _check(self, split, paths, table, doubtful):
        """Raise InputError for files that cannot be scored; all are read, so that nothing fails half way.

        doubtful: ids that would mean one thing as the data's own and another as training ids, if no others are there.
        """
        damaged = []
        sizes = []
        unknown = {}
        found = set()
        for path, size in zip(paths, zip(split.heights, split.widths, strict=True), strict=True):
            try:
                data = read_bytes(path)
                given = header(data, path)[0]
                if tuple(given) != tuple(map(int, size)):
                    sizes.append(f"{path} ({size_text(given)}, not {size_text(size)})")
                    continue
                ids = set(np.unique(decode_label(data, path, advice=_NO_COLOURS)[0]).tolist())
            except InputError as error:
                damaged.append(str(error))
                continue
            found |= ids
            for number in ids:
                if table[number] < 0:
                    unknown.setdefault(number, path)
        problems = [*damaged[:SHOWN]]
        if more := damaged[SHOWN:]:
            problems.append(f"and {len(more)} more")
        if sizes:
            problems.append(f"{count_text(len(sizes), 'label map')} of another size: {first_names(sizes, SHOWN)}")
        if unknown:
            shown = [f"{number} ({path})" for number, path in sorted(unknown.items())]
            advice = ""
            if doubtful and set(unknown) <= doubtful:
                advice = f'. If they are training ids, write ids = "training" into {self._place()}'
            problems.append(
                f"ids that are not among those of the data or description: {first_names(shown, SHOWN)}{advice}"
            )
        if problems:
            raise InputError("\n".join([f"The label maps of {self._folder} cannot be scored:", *problems]))
        if doubtful and found <= doubtful:
            shown = first_names(sorted(found), SHOWN)
            raise InputError(
                f"The ids in {self._folder} ({shown}) can be training ids or the dataset's own, which are of other "
                f'classes. Write ids = "own" or ids = "training" into {self._place()}.'
            )

    def _place(self):
        return self._described.path or f"{self._folder}.toml, beside it"


class _MapsOfSplit(LabelModel):
    """The label maps of a split's images, as training ids of its label set."""

    def __init__(self, paths, table, label_set, reads):
        self._paths = paths
        self._table = table
        self.num_classes = label_set.num_classes
        self.label_set = {"name": label_set.name, "classes": list(label_set.classes), "palette": label_set.palette}
        self.reads = reads

    def predict(self, images, height, width, names):
        return np.stack([self._read(self._paths[name], (height, width)) for name in names])

    def _read(self, path, size):
        ids = self._table[decode_label(read_bytes(path), path)[0]]
        if ids.shape != tuple(size) or ids.min() < 0:
            raise InputError(f"{path} was changed while it was read.")
        return ids.astype(np.uint8)
