"""kseg: train, compare and ship semantic-segmentation models of road scenes with Keras 3.

Every public name is loaded when it is first used: `import kseg` imports neither TensorFlow nor Keras. When Keras is
imported, before or afterwards, it gets to know every class of kseg's that a saved model may name. It sets
TF_CPU_ALLOCATOR_USE_BFC for TensorFlow, unless that is set (`kseg.io.runtime` says why).
"""

import importlib
import sys

from kseg.io.runtime import keep_buffers

__version__ = "0.1.0"

_MODULES = {
    "build_model": "kseg.models",
    "MODELS": "kseg.models",
    "load_dataset": "kseg.data.pipeline.load",
    "prepare_dataset": "kseg.data.records.prepare",
    "train": "kseg.training.launch",
    "evaluate": "kseg.evaluation.evaluate",
    "compare": "kseg.reports.comparison",
    "predict": "kseg.inference.predict",
    "load_model": "kseg.inference.loading",
    "export_saved_model": "kseg.export.savedmodel",
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


def __getattr__(name):
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"kseg.{name}")
    raise AttributeError(f"module 'kseg' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)


def _register_classes(_=None):
    """Import the modules whose classes Keras finds by name.

    One of kseg's modules may be what imports Keras: it is not whole yet. So those that these modules need are imported
    as modules (`from kseg import windows`), never their names.
    """
    for name in _SERIALIZABLE:
        importlib.import_module(f"kseg.{name}")


if "keras" in sys.modules:
    _register_classes()
else:
    import wrapt

    wrapt.register_post_import_hook(_register_classes, "keras")
