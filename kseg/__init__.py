"""kseg: train, compare and ship semantic-segmentation models of road scenes with Keras 3.

Every public name is loaded when it is first used: `import kseg` imports neither TensorFlow nor Keras. When Keras is
imported, before or after kseg, every class of kseg's that a saved model may name is registered with it. `import kseg`
sets TF_CPU_ALLOCATOR_USE_BFC for TensorFlow, unless it is already set (`kseg.io.runtime` says why), and keeps back what
TensorFlow logs, unless TF_CPP_MIN_LOG_LEVEL is set (`kseg.io.tensorflow_log`).
"""

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING

from kseg.io.import_hook import around_import
from kseg.io.runtime import keep_buffers
from kseg.io.tensorflow_log import quiet_tensorflow

__version__ = "0.1.0"

_MODULES = {
    "build_model": "kseg.models",
    "MODELS": "kseg.models",
    "load_dataset": "kseg.data.pipeline.load",
    "prepare_dataset": "kseg.data.records.prepare",
    "train": "kseg.training.launch",
    "evaluate": "kseg.evaluation.evaluate",
    "calibrate": "kseg.evaluation.temperature",
    "compare": "kseg.reports.comparison",
    "study": "kseg.studies.study",
    "predict": "kseg.inference.predict",
    "load_model": "kseg.inference.model_loading",
    "export_model": "kseg.export.export_model",
    "export_saved_model": "kseg.export.export_model",
    "InputError": "kseg.io.errors",
}
_SUBMODULES = ("blocks", "data", "layers", "losses", "metrics", "models", "settings", "visualization")

_SERIALIZABLE = (
    "layers",
    "losses",
    "metrics.keras_metric",
    "training.schedules",
)  # every class that a saved model may name is in these

__all__ = ["__version__", *_MODULES, *_SUBMODULES]

keep_buffers()
quiet_tensorflow()


if TYPE_CHECKING:  # what editors and type checkers read instead of the table; a test holds both equal
    from kseg import blocks as blocks
    from kseg import data as data
    from kseg import layers as layers
    from kseg import losses as losses
    from kseg import metrics as metrics
    from kseg import models as models
    from kseg import settings as settings
    from kseg import visualization as visualization
    from kseg.data.pipeline.load import load_dataset as load_dataset
    from kseg.data.records.prepare import prepare_dataset as prepare_dataset
    from kseg.evaluation.evaluate import evaluate as evaluate
    from kseg.evaluation.temperature import calibrate as calibrate
    from kseg.export.export_model import export_model as export_model
    from kseg.export.export_model import export_saved_model as export_saved_model
    from kseg.inference.model_loading import load_model as load_model
    from kseg.inference.predict import predict as predict
    from kseg.io.errors import InputError as InputError
    from kseg.models import MODELS as MODELS
    from kseg.models import build_model as build_model
    from kseg.reports.comparison import compare as compare
    from kseg.studies.study import study as study
    from kseg.training.launch import train as train
else:  # hidden from them, for whom it would make any name one of kseg's

    def __getattr__(name):
        if name in _MODULES:
            return getattr(importlib.import_module(_MODULES[name]), name)
        if name in _SUBMODULES:
            return importlib.import_module(f"kseg.{name}")
        hint = ". kseg.export_model exports a model" if name == "export" else ""
        raise AttributeError(f"module 'kseg' has no attribute {name!r}{hint}", name=name, obj=sys.modules[__name__])


def __dir__():
    return sorted(__all__)


def _register_classes():
    """Import the modules whose classes Keras finds by name.

    The import of Keras may come from one of kseg's own modules, which is then not complete yet. So these modules import
    the modules they need (`from kseg.layers import pooling`), never names from them.
    """
    for name in _SERIALIZABLE:
        importlib.import_module(f"kseg.{name}")


@contextlib.contextmanager
def _registering_classes():
    yield
    _register_classes()


if "keras" in sys.modules:
    _register_classes()
else:
    around_import("keras", _registering_classes)
