"""A contestant made ready for a split: its class map applied, a folder of label maps tied to the images' names."""

from kseg.inference.label_model import LabelModel, class_names, reads_of
from kseg.inference.outside.class_map import ClassMap
from kseg.inference.outside.predicted_maps import PredictedMaps
from kseg.inference.predictor import predictor
from kseg.io.errors import InputError


def fitted(model, source, class_map=None):
    """Return a contestant as it is scored on a split.

    Args:
        model: of `loading.as_model`. source: of `kseg.data.pipeline.load.open_split`.
        class_map: path of a map (`ClassMap.read`), or a dict of names; None: that of its description, if any. It is
            applied to the labels: each pixel's winning class becomes a class of the data.
    Raises:
        InputError: a map or label maps that do not fit the data; a map given twice.
    """
    described = getattr(model, "kseg_class_map", None)
    if class_map is not None:
        if described is not None:
            raise InputError(f"A map was given, but there is one already: {described.where}. Leave out one.")
        described = ClassMap.of(class_map, "The map") if isinstance(class_map, dict) else ClassMap.read(class_map)
    if isinstance(model, PredictedMaps):
        return model.of_split(source.split, source.label_set, described)
    if described is None:
        return model
    return _Mapped(model, described, source.label_set)


def check_own_classes(model):
    """Raise InputError for a contestant that only a record folder's classes and names can complete."""
    if isinstance(model, PredictedMaps) or getattr(model, "kseg_class_map", None) is not None:
        raise InputError(
            f"{model.reads or 'A model'} {'with a map ' if not isinstance(model, PredictedMaps) else ''}must be scored "
            "on a record folder, which says the names of images and classes; pairs (image, label) do not."
        )


class _Mapped(LabelModel):
    """A model whose classes have become those of a label set."""

    def __init__(self, model, class_map, label_set):
        names = getattr(model, "names", None) or dict(enumerate(class_names(model)))
        self._table = class_map.ids(names, label_set)
        self._predict = predictor(model)
        self.num_classes = label_set.num_classes
        self.label_set = {"name": label_set.name, "classes": list(label_set.classes), "palette": label_set.palette}
        self.reads = reads_of(model)

    def predict(self, images, height, width, names):
        return self._table[self._predict(images, height, width, names)]
