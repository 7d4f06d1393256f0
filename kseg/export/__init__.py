"""A model as other programs take it. A format is one entry of EXPORTERS, from which --format and its help follow."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Exporter:
    """A format: f(model, path) -> the path written; model is a keras.Model, a run folder or a .keras file."""

    function: Callable
    help: str


# Imported when it is called: it needs Keras, while --help does not.
def _savedmodel(model, path):
    from kseg.export.savedmodel import export_saved_model

    return export_saved_model(model, path)


EXPORTERS = {"savedmodel": Exporter(_savedmodel, "TensorFlow's SavedModel, a folder that needs no kseg")}
