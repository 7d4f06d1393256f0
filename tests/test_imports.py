"""The order of kseg's modules: each imports those before it, and no two import each other in a circle."""

import ast
import graphlib
import shutil
import subprocess
import sys

import pytest

# The rooms of kseg (folders and files at its top): each imports itself and what stands before it.
ORDER = (
    "io",
    "score_table",
    "settings",
    "layers",
    "blocks",
    "visualization",
    "data",
    "runs",
    "losses",
    "metrics",
    "models",
    "inference",
    "export",
    "evaluation",
    "reports",
    "studies",
    "training",
    "serving",
    "commands",
    "__main__",
)
APART = ({"reports", "training"},)  # neither imports the other


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
    names = modules_of(package)
    faults = []
    graph = {name: imports_of(path, names) for name, path in names.items() if name}
    for name, imported in graph.items():
        room = name.split(".")[0]
        if room not in order:
            faults.append(f"{name} has no place in the order of imports")
            continue
        before = order[: order.index(room) + 1]
        for other in sorted(imported):
            if other.split(".")[0] not in before or {room, other.split(".")[0]} in APART:
                faults.append(f"{name} imports {other}")
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


def test_no_two_files_have_one_name_and_the_rooms_are_few(root):
    names = [path.name for path in (root / "kseg").rglob("*.py") if path.name != "__init__.py"]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
    assert len(set(ORDER) - {"__main__"}) <= 19  # a file, no room


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("metrics/scores.py", "from kseg.training.train import train", "metrics.scores imports training.train"),
        # Upward among the rooms that come last, in a function, by the other two ways to write it.
        ("evaluation/audit.py", "def late():\n    from kseg import training", "evaluation.audit imports training"),
        (
            "reports/dataset_report.py",
            "import kseg.training.signals",
            "reports.dataset_report imports training.signals",
        ),
        ("training/train.py", "from kseg.reports import comparison", "training.train imports reports.comparison"),
        ("io/files.py", "from kseg.models.unet import unet", "io.files imports models.unet"),
        # A room may import itself, in no circle.
        ("data/labels.py", "from kseg.data.records.manifest import Split", "circle: "),
        # The commands come last: nothing else may know them.
        ("training/train.py", "from kseg.commands import command_line", "training.train imports commands.command_line"),
        ("new_room.py", "", "new_room has no place in the order of imports"),
    ],
)
def test_a_planted_import_is_found(root, tmp_path, file, line, fault):
    shutil.copytree(root / "kseg", tmp_path / "kseg", ignore=shutil.ignore_patterns("__pycache__", "assets"))
    path = tmp_path / "kseg" / file
    path.write_text(f"{path.read_text() if path.exists() else ''}\n{line}\n")
    found = faults_of(tmp_path / "kseg")
    assert [text for text in found if text.startswith(fault)], found


# Where TensorFlow may be imported at the top of a file, for only TensorFlow runs it.
TENSORFLOW = {
    "data.augmentation.apply_tensorflow",
    "data.pipeline.examples_tensorflow",
    "training.distribution.replicas",
    "training.trainers.remat",
    "training.trainers.tensorflow",
}


def imported_packages(nodes):
    """The first parts of what import statements name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def test_flags_stay_in_the_commands_and_tensorflow_out_of_the_portable_rooms(root):
    with_flags = set()
    with_tensorflow = set()
    for name, path in modules_of(root / "kseg").items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if "absl" in imported_packages(ast.walk(tree)):
            with_flags.add(name.partition(".")[0])
        if "tensorflow" in imported_packages(tree.body):
            with_tensorflow.add(name)
    assert with_flags == {"commands"}
    assert with_tensorflow <= TENSORFLOW


# Of the standard library: modules that some systems lack, and what Windows' `os` lacks.
OF_SOME_SYSTEMS = {
    "curses",
    "fcntl",
    "grp",
    "msvcrt",
    "posix",
    "pty",
    "pwd",
    "readline",
    "resource",
    "syslog",
    "termios",
}
OF_SOME_SYSTEMS |= {"tty", "winreg", "_posixshmem", "_winapi"}
NOT_ON_WINDOWS = ("fork", "getuid", "killpg", "pread", "pwrite", "sched_getaffinity", "setsid", "sysconf", "uname")


def running_at_import(tree):
    """The nodes of a module that run when it is imported: all but the insides of functions."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            yield from running_at_import(node)


def of_some_systems(text):
    """What a module needs at import that some systems lack."""
    nodes = list(running_at_import(ast.parse(text)))
    attributes = [node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os"]
    return sorted(OF_SOME_SYSTEMS & set(imported_packages(nodes)) | set(NOT_ON_WINDOWS) & set(attributes))


def test_no_module_needs_one_system_to_be_imported(root):
    found = {name: of_some_systems(path.read_text("utf-8")) for name, path in modules_of(root / "kseg").items()}
    assert {name: needed for name, needed in found.items() if needed} == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import resource", ["resource"]),
        ("if True:\n    from fcntl import flock", ["fcntl"]),
        ("class A:\n    import pwd", ["pwd"]),
        ("import os\nCORES = len(os.sched_getaffinity(0))", ["sched_getaffinity"]),
        ("def late():\n    import resource, os\n    os.fork()", []),
        ("import os\nHERE = os.getcwd()", []),
    ],
)
def test_a_planted_need_of_one_system_is_found(text, expected):
    assert of_some_systems(text) == expected


def test_the_commands_can_be_imported_where_windows_lacks_something(root):
    """What `import kseg` runs, and every `--help`: modules and names of one system are taken away first."""
    program = f"""
import os, sys
import multiprocessing, subprocess, tempfile, numpy, PIL.Image, tqdm, wrapt  # others' modules look before they use
sys.modules.update(dict.fromkeys({sorted(OF_SOME_SYSTEMS)}))
for name in {NOT_ON_WINDOWS}:
    delattr(os, name)
import importlib, pkgutil
import kseg
rooms = [kseg] + [importlib.import_module(f"kseg.{{room}}") for room in ("io", "settings", "commands")]
for room in rooms[1:]:
    for module in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
        importlib.import_module(module.name)
print(len(sys.modules), kseg.__version__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
