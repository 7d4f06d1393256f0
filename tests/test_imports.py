"""The order of kseg's modules: each imports those before it, and no two import each other in a circle."""

import ast
import graphlib
import shutil

import pytest

# The first level of kseg: a module or folder imports itself and what stands before it.
ORDER = (
    # io: what knows nothing of segmentation
    *("errors", "runtime", "progress", "signals", "group"),
    # settings
    *("loss_options", "settings"),
    # layers, blocks
    *("windows", "layers", "blocks"),
    # data, visualization
    *("data", "visualization", "confusion"),
    # runs
    *("checkpoints", "runs"),
    # losses
    *("loss_sums", "class_weights", "losses", "objectives"),
    # metrics
    *("metrics", "components", "boundaries", "objects", "cityscapes_scores", "seed_scores", "bootstrap", "audit"),
    # models
    *("models", "architecture"),
    # inference
    *("finite", "prediction", "checks"),
    # export
    *("export",),
    # evaluation, with Cityscapes' submission
    *("submission_check", "cityscapes_evaluation", "seed_evaluation", "submission", "evaluation"),
    # reports
    *("reporting", "page", "comparison_table", "comparison", "dataset_report"),
    # training
    *(
        "selection",
        "averaging",
        "optimizers",
        "run_log",
        "remat",
        "replicas",
        "loop",
        "loop_tensorflow",
        "loop_jax",
        "loops",
    ),
    *("auxiliary", "finetuning", "building", "finishing", "training", "launch"),
)


def modules_of(package):
    """{dotted name below the package: path}, "" being the package's own __init__."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports_of(path, names):
    """The modules of kseg that a file imports anywhere in it, inside of functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.add("a relative import")  # none is in use
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kseg":
            module = node.module.removeprefix("kseg").removeprefix(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".removeprefix(".")
                found.add(inner if inner in names else module)
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("kseg.") for alias in node.names if alias.name.startswith("kseg.")}
    return found - {""}  # the package's own facts: its version


def faults_of(package, order=ORDER):
    """Everything about a package's imports that must not be, a line each."""
    names, faults = modules_of(package), []
    graph = {name: imports_of(path, names) for name, path in names.items() if name}
    for name, imported in graph.items():
        room = name.split(".")[0]
        if room not in order:
            faults.append(f"{name} has no place in the order of imports")
            continue
        before = order[: order.index(room) + 1]
        faults += [f"{name} imports {other}" for other in sorted(imported) if other.split(".")[0] not in before]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        faults.append(f"circle: {' -> '.join(error.args[1])}")
    return faults


def test_imports_run_one_way(root):
    assert faults_of(root / "kseg") == []


def test_the_order_names_no_module_twice_and_none_that_is_gone(root):
    assert len(set(ORDER)) == len(ORDER)
    assert set(ORDER) == {name.split(".")[0] for name in modules_of(root / "kseg") if name}


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("metrics.py", "from kseg.training import train", "metrics imports training"),
        # Upward among the rooms that come last, in a function, by the other two ways to write it.
        ("evaluation.py", "def late():\n    from kseg import training", "evaluation imports training"),
        ("dataset_report.py", "import kseg.finishing", "dataset_report imports finishing"),
        ("data/files.py", "from kseg.models.unet import unet", "data.files imports models.unet"),
        ("data/files.py", "from kseg.data.records import Split", "circle: "),  # a room may import itself, in no circle
        ("new_room.py", "", "new_room has no place in the order of imports"),
    ],
)
def test_a_planted_import_is_found(root, tmp_path, file, line, fault):
    shutil.copytree(root / "kseg", tmp_path / "kseg", ignore=shutil.ignore_patterns("__pycache__", "assets"))
    path = tmp_path / "kseg" / file
    path.write_text(f"{path.read_text() if path.exists() else ''}\n{line}\n")
    found = faults_of(tmp_path / "kseg")
    assert [text for text in found if text.startswith(fault)], found
