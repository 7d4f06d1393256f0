"""Keras finds kseg's classes after a plain `import kseg`, in a process that imports nothing else of kseg's."""

import ast
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tiny

import kseg

PACKAGE = pathlib.Path(kseg.__file__).parent
CHILD = """
import json, sys
order, folder = sys.argv[1:]
for name in order.split(","):
    if name == "kseg":
        import kseg
        alone = sorted({"keras", "tensorflow", "jax", "numpy"} & set(sys.modules))
    elif name == "keras":
        import keras
    elif name == "tf.keras":
        import tensorflow as tf
        keras = tf.keras
    else:
        __import__(name)
import keras as plain
if "keras" not in order:
    keras = plain
import numpy as np
found = {"registered": sorted(n for n in plain.saving.get_custom_objects() if n.startswith("kseg>"))}
found["alone"] = alone if order.startswith("kseg,") else None
image = np.load(f"{folder}/image.npy")
names = json.load(open(f"{folder}/names.json"))
for name in names if order == "kseg,keras" and plain.backend.backend() == "tensorflow" else names[:1]:
    model = keras.models.load_model(f"{folder}/{name}.keras")
    clone = keras.models.clone_model(model)
    again = type(model).from_config(model.get_config())
    text = keras.models.model_from_json(model.to_json())
    outputs = []
    for other in (model, clone, again, text):
        other.set_weights(model.get_weights())
        outputs.append(np.asarray(other(image, training=False)))
    found[name] = [float(np.abs(out - outputs[0]).max()) for out in outputs] + [np.abs(outputs[0]).sum().item()]
    if name == "tiny":
        found["compiled"] = [type(model.loss).__name__, type(model.optimizer).__name__]
        found["loss"] = float(model.loss(np.zeros((1, 32, 64), "int32"), outputs[0]))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models that hold every layer of kseg's between them, one of them compiled, and what they give."""
    root = tmp_path_factory.mktemp("models")
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3)).astype("float32")
    np.save(root / "image.npy", image)
    models = {"tiny": tiny.build_tiny()}
    models["tiny"].compile(
        "sgd", loss=kseg.losses.CrossEntropy([1, 2, 3]), metrics=[kseg.metrics.SegmentationScores(3)]
    )
    for name in ("segnet_aspp", "fcn8s", "parsenet", "deeplabv3"):  # keras-cv is imported by Keras itself
        models[name] = kseg.build_model(name, (32, 64, 3), 3, base_filters=1)
    for name, model in models.items():
        model.save(root / f"{name}.keras")
    (root / "names.json").write_text(json.dumps(list(models)))
    return root, {name: float(np.abs(model(image)).sum()) for name, model in models.items()}


@pytest.mark.parametrize(
    ("order", "backend"),
    [
        ("kseg,keras", "tensorflow"),
        ("tf.keras,kseg", "tensorflow"),
        ("kseg,tf.keras", "tensorflow"),
        ("kseg,keras", "jax"),
    ],
)
def test_a_plain_import_is_enough_to_load_and_clone(folder, order, backend, root):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed (pip install -e '.[test]')")
    environment = {**os.environ, "PYTHONPATH": str(root), "KERAS_BACKEND": backend}
    command = [sys.executable, "-c", CHILD, order, str(folder[0])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder[0])
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("alone") in ([], None)  # import kseg imported no framework, nor NumPy
    assert found.pop("registered") == sorted(registered())
    assert found.pop("compiled") == ["CrossEntropy", "SGD"] and found.pop("loss") > 0
    expected = {name: value for name, value in folder[1].items() if name in found}
    assert len(expected) == (5 if (order, backend) == ("kseg,keras", "tensorflow") else 1)
    for name, (*differences, total) in found.items():
        assert differences == [0, 0, 0, 0] and total == pytest.approx(expected[name], rel=1e-3), name


def registered():
    """The names of all classes of kseg's that are decorated, read from the source."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            marks = getattr(node, "decorator_list", ())
            if any("register_keras_serializable" in ast.unparse(mark) for mark in marks):
                yield f"kseg>{node.name}"


# In place of Keras: whatever is asked of it is a class to inherit from, and its call gives a decorator.
STUB = """
class Kind(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub

class Stub(metaclass=Kind):
    def __new__(cls, *arguments, **options):
        return lambda decorated: decorated

def __getattr__(name):
    return getattr(Stub, name)
"""
FIRST = """
import importlib, os, sys, traceback
import numpy
failed = []
for name in sys.argv[1:]:
    child = os.fork()  # a process as fresh as this one, without the start
    if not child:
        try:
            importlib.import_module(name)
            import kseg
            assert "keras" in sys.modules
            assert all(f"kseg.{module}" in sys.modules for module in kseg._SERIALIZABLE)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print(failed)
"""


def test_any_module_may_be_the_one_that_imports_keras(root, tmp_path):
    """It is not whole when Keras is there, and the modules with classes that a file may name are imported then."""
    (tmp_path / "keras.py").write_text(STUB)
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in ("inference", "export", "evaluation", "reports", "training"):
            continue  # tests/test_imports.py: no module with such classes imports those
        imported = [statement.split()[1] for statement in path.read_text().splitlines() if imports(statement)]
        if "keras" in imported and "tensorflow" not in imported:
            names.append(".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))
    assert {"kseg.losses.functional", "kseg.layers.pooling", "kseg.metrics.keras_metric"} < set(names)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    command = [sys.executable, "-c", FIRST, *names]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout == "[]\n", done.stdout + done.stderr[-3000:]


def imports(statement):
    return statement.startswith(("import ", "from "))


def test_keras_is_told_to_use_the_losses_class_weights():
    """The class_weight of fit cannot know one class a pixel; the loss can."""
    model = tiny.build_tiny()
    images = np.zeros((2, 32, 64, 3), np.uint8)
    labels = np.zeros((2, 32, 64), np.uint8)
    for loss in (kseg.losses.CrossEntropy(), kseg.losses.SegmentationLoss("dice")):
        model.compile("sgd", loss=loss)
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2)
        name = type(loss).__name__
        with pytest.raises(kseg.InputError, match=rf"class_weight of fit.* to the loss: {name}\(class_weights=\["):
            model.fit(data, class_weight={0: 1.0, 1: 2.0, 2: 3.0}, verbose=0)
        for weights in (np.ones(2), np.ones((2, 32, 64))):
            with pytest.raises(kseg.InputError, match="takes no sample weights. Mark pixels with ignore_label"):
                model.fit(images, labels, sample_weight=weights, verbose=0)
