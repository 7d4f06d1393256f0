"""The public names as editors and type checkers see them."""

import ast
import dataclasses
import importlib
import inspect

import pytest

import kseg
from kseg.data.records.manifest import Manifest
from kseg.metrics.cityscapes_scores import CityscapesScores
from kseg.metrics.fischer2021_scores import Fischer2021Scores
from kseg.metrics.scores import Scores
from kseg.reports.comparison_table import Comparison
from kseg.settings import Augmentation, Resize, Settings
from kseg.studies.study_report import StudyReport

# What the public functions take and give.
DATACLASSES = (
    Augmentation,
    CityscapesScores,
    Comparison,
    Fischer2021Scores,
    Manifest,
    Resize,
    Scores,
    Settings,
    StudyReport,
)
CLASSES = (
    kseg.layers.MaxPooling2DWithArgmax.call,
    kseg.layers.MaxUnpooling2D.call,
    kseg.layers.Preprocess.__init__,
    kseg.losses.CrossEntropy.__init__,
    kseg.losses.SegmentationLoss.__init__,
    kseg.metrics.SegmentationScores.__init__,
    kseg.metrics.SegmentationScores.matrix,
    kseg.metrics.SegmentationScores.scores,
)


def seen_by_editors(path):
    """{name: module} of the imports that a file has for type checkers alone; names of submodules have None."""
    (block,) = (
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    found = {}
    for line in block.body:
        for alias in line.names:
            assert alias.asname in (None, alias.name)
            found[alias.name] = None if line.module == "kseg" else line.module
    return found


def test_editors_see_the_names_of_the_lazy_table(root):
    seen = seen_by_editors(root / "kseg" / "__init__.py")
    assert seen == {**kseg._MODULES, **dict.fromkeys(kseg._SUBMODULES)}
    assert set(kseg.__all__) == {"__version__", *seen}


def test_editors_see_the_metrics_that_need_keras(root):
    seen = seen_by_editors(root / "kseg" / "metrics" / "__init__.py")
    lazy = set(kseg.metrics.__all__) - set(vars(kseg.metrics))
    assert lazy and set(seen) == lazy
    for name, module in seen.items():
        assert getattr(kseg.metrics, name) is getattr(importlib.import_module(module), name)


def lacking(function):
    """The parameters of a function that have no type, and "return" if what it gives has none."""
    signature = inspect.signature(function)
    found = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is parameter.empty and parameter.name not in ("self", "cls")
    ]
    return found + ["return"] * (signature.return_annotation is signature.empty)


@pytest.mark.parametrize("name", sorted(name for name in kseg._MODULES if name not in ("MODELS", "InputError")))
def test_public_functions_say_their_types(name):
    assert lacking(getattr(kseg, name)) == []


def test_public_classes_say_their_types():
    assert {function.__qualname__: lacking(function) for function in CLASSES if lacking(function)} == {}
    for cls in DATACLASSES:
        assert dataclasses.is_dataclass(cls)
        unsaid = {dict, tuple, list, "dict", "tuple", "list"}  # what they hold
        assert [field.name for field in dataclasses.fields(cls) if field.type in unsaid] == [], cls
        for method, value in vars(cls).items():
            function = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", value)
            if inspect.isfunction(function) and not method.startswith("_"):
                assert lacking(function) == [], f"{cls.__name__}.{method}"
