"""A model as other programs take it. A format is one entry of EXPORTERS, from which --format and its help follow."""

import pkgutil
from typing import Any, NamedTuple


class Exporter(NamedTuple):
    """A format. function: "module:function", imported when it is called: it needs Keras, while --help does not."""

    function: str
    help: str

    def write(self, model: Any, path: Any) -> Any:
        """Write a model (keras.Model, run folder or .keras file) and return the path written."""
        return pkgutil.resolve_name(self.function)(model, path)


EXPORTERS = {
    "savedmodel": Exporter(
        "kseg.export.savedmodel:export_saved_model",
        "TensorFlow's SavedModel, a folder that needs no kseg",
    )
}
