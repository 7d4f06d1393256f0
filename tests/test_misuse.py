"""What a user does wrong is an InputError, whatever was passed; what kseg does wrong keeps its type and traceback."""

import functools
import importlib
import json
import os
import re
import sys

import keras
import numpy as np
import pytest
import tiny
from PIL import Image

import kseg
from kseg import layers, losses, metrics
from kseg.commands import command_line
from kseg.data.records import manifest
from kseg.data.records.prepare import prepare_dataset
from kseg.data.synthetic import dataset
from kseg.inference import predict_files
from kseg.io.errors import InputError
from kseg.losses import SegmentationLoss
from kseg.models import MODELS, options_of
from kseg.models.pretrained import weights
from kseg.studies import study_report
from kseg.studies.verify import verify


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with records, a model's file, and paths that cannot be read."""
    root = tmp_path_factory.mktemp("misuse")
    tiny.write_records(root)
    tiny.build_tiny().save(root / "tiny.keras")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / "image.png")
    (root / "loop").symlink_to(root / "loop")
    (root / "text.txt").write_text("no picture, no model, no table")
    (root / "broken.png").write_bytes((root / "image.png").read_bytes()[:40])
    PLACE["records"] = root / "records"
    return root


@functools.cache
def model():
    return tiny.build_tiny()


def two_outputs():
    image = keras.Input((8, 8, 3))
    return keras.Model(image, [keras.layers.Conv2D(2, 1)(image), keras.layers.Conv2D(2, 1)(image)])


def bad_paths(root):
    """What is no path, or the path of nothing that can be read."""
    yield from (3, None, 2.5, b"bytes", ["a"], "", "nul\0byte", "x" * 5000, "\ud800", root / "loop")
    yield from (root / "nothing", root / "text.txt", root / "text.txt" / "below")


PLACE = {}  # where the fixture of that name has its records
READERS = {
    "load_dataset": lambda path: kseg.load_dataset(path, "val"),
    "load_model": kseg.load_model,
    "evaluate a model": lambda path: kseg.evaluate(path, []),
    "evaluate data": lambda path: kseg.evaluate(model(), path),
    "evaluate an image": lambda path: kseg.evaluate(model(), [(path, np.zeros((4, 4), np.uint8))]),
    "evaluate a label": lambda path: kseg.evaluate(model(), [(np.zeros((4, 4, 3), np.uint8), path)]),
    "predict": lambda path: kseg.predict(model(), path),
    "predict by": lambda path: kseg.predict(path, np.zeros((4, 4, 3), np.uint8)),
    "predict all files": lambda path: predict_files.predict_files(model(), path, "nowhere"),
    "predict files": lambda path: predict_files.predict_files(model(), [path], "nowhere"),
    "scores": metrics.Scores.from_json,
    "export": lambda path: kseg.export_saved_model(path, "nowhere"),
    "prepare": lambda path: prepare_dataset("folder", path, "nowhere", progress=False),
    "prepare cityscapes": lambda path: prepare_dataset("cityscapes", path, "nowhere", progress=False),
    "prepare camvid": lambda path: prepare_dataset("camvid", path, "nowhere", progress=False),
    "train": lambda path: kseg.train("unet", path, "nowhere", epochs=1),
    "compare": lambda path: kseg.compare([path, "other"], "data", "nowhere"),
    "verify": verify,
    "map": lambda path: kseg.evaluate(model(), PLACE["records"], class_map=path),
    "study": kseg.study,
    "study's report": study_report.report,
    "encoder weights": lambda path: weights.load_encoder_weights(model(), "vgg16", path),
}


@pytest.mark.parametrize("name", READERS)
def test_a_path_that_cannot_be_read_is_an_input_error(name, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (*bad_paths(place), place):
        if path == ["a"] and name == "predict":
            continue  # a list is of images
        if path is None and name == "map":
            continue  # no map
        with pytest.raises(InputError) as caught:
            READERS[name](path)
        assert len(str(caught.value)) > 10
    assert not list(tmp_path.iterdir())


WRITERS = {
    "export": lambda path, root: kseg.export_saved_model(labelled(), path),
    "train": lambda path, root: kseg.train("unet", root / "records", path, epochs=1),
    "compare": lambda path, root: kseg.compare({"a": model(), "b": model()}, root / "records", path),
    "prepare": lambda path, root: prepare_dataset("folder", root / "source", path, progress=False, workers=1),
}


def study_of(root):
    return {
        "name": "x",
        "output": str(root / "out"),
        "models": [{"name": "unet"}],
        "data": [{"name": "tiny", "data_dir": str(root / "records")}],
        "seeds": 1,
        "budget": {"kind": "images", "value": 8},
    }


def grey():
    image = keras.Input((32, 64, 1))
    return keras.Model(image, keras.layers.Conv2D(3, 1)(image))


class Subclassed(keras.Model):
    """A model without a graph: what it takes and gives is not known."""


@functools.cache
def labelled():
    made = tiny.build_tiny()
    made.get_layer("preprocess").label_set = tiny.LABELS
    return made


@pytest.mark.parametrize("name", WRITERS)
def test_a_path_that_cannot_be_written_is_an_input_error(name, place):
    for path in bad_paths(place):
        if path == place / "nothing":
            continue  # it may be made
        before = sorted(place.rglob("*"))
        with pytest.raises(InputError):
            WRITERS[name](path, place)
        assert sorted(place.rglob("*")) == before and (place / "text.txt").read_text().startswith("no picture")


BUILDS = [
    lambda: kseg.build_model("segnet", "256", 3),
    lambda: kseg.build_model("segnet", 256, 3),
    lambda: kseg.build_model("segnet", (256.0, 256, 3), 3),
    lambda: kseg.build_model("segnet", (256, 256), 3),
    lambda: kseg.build_model("segnet", None, 3),
    lambda: kseg.build_model("segnet", (32, 32, 3), "3"),
    lambda: kseg.build_model("segnet", (32, 32, 3), 2.0),
    lambda: kseg.build_model(["segnet"], (32, 32, 3), 3),
    lambda: kseg.build_model(None, (32, 32, 3), 3),
    lambda: kseg.train("no such model", "data", "work", epochs=1),
    lambda: kseg.train(model(), "data", "work", epochs=1),
    lambda: kseg.train("unet", "data", "work", model_options=["depth"], epochs=1),
    lambda: kseg.train("unet", "data", "work", model_options={"name": "mine"}, epochs=1),
]
CALLS = [
    lambda root: kseg.load_dataset(root / "records", 3),
    lambda root: kseg.load_dataset(root / "records", ["val"]),
    lambda root: kseg.load_dataset(root / "records", "val", label_set=3),
    lambda root: kseg.load_dataset(root / "records", "val", label_set=["train_ids"]),
    lambda root: kseg.load_dataset(root / "records", "val", batch_size="2"),
    lambda root: kseg.load_dataset(root / "records", "val", batch_size=0),
    lambda root: kseg.load_dataset(root / "records", "val", height=32),
    lambda root: kseg.load_dataset(root / "records", "val", height="32", width="64"),
    lambda root: kseg.load_dataset(root / "records", "train", height=32, width=64, training=True, augmentation=3),
    lambda root: kseg.load_dataset(root / "records", "train", height=32, width=64, training=True, seed=-1),
    lambda root: kseg.load_dataset(root / "records", "val", label_space="train_ids"),
    lambda root: kseg.evaluate(3, root / "records"),
    lambda root: kseg.evaluate(None, root / "records"),
    lambda root: kseg.evaluate(two_outputs(), root / "records"),
    lambda root: kseg.evaluate(keras.Sequential([keras.layers.Dense(2)]), root / "records"),
    lambda root: kseg.evaluate(model(), 3),
    lambda root: kseg.evaluate(model(), [3]),
    lambda root: kseg.evaluate(model(), [(1, 2, 3)]),
    lambda root: kseg.evaluate(model(), [(1, 2)]),
    lambda root: kseg.evaluate(model(), {"a": 1}),
    lambda root: kseg.evaluate(model(), np.zeros((2, 4, 4, 3), np.uint8)),
    lambda root: kseg.evaluate(model(), root / "records", protocol=["standard"]),
    lambda root: kseg.evaluate(model(), root / "records", split=0),
    lambda root: kseg.evaluate(model(), root / "records", batch_size=0),
    lambda root: kseg.evaluate(model(), root / "records", batch_size=1.5),
    lambda root: kseg.evaluate(model(), [(root / "image.png", root / "image.png")], batch_size=2),
    lambda root: kseg.load_dataset(root / "records", "train", height=32, width=64, batch_size=99, training=True),
    lambda root: kseg.load_dataset(root / "records", "val", augmentation=kseg.settings.Augmentation(flip=True)),
    lambda root: kseg.load_dataset(root / "records", "val", seed=3),
    lambda root: kseg.evaluate(model(), [(root / "broken.png", root / "image.png")]),
    lambda root: kseg.predict(model(), None),
    lambda root: kseg.predict(model(), [[[1, 2, 3], [4]]]),
    lambda root: kseg.predict(model(), np.zeros((4, 4, 3))),
    lambda root: kseg.predict(model(), b""),
    lambda root: kseg.predict(model(), root / "broken.png"),
    lambda root: kseg.predict(3, root / "image.png"),
    lambda root: kseg.predict(model(), np.zeros((0, 5, 3), np.uint8)),
    lambda root: kseg.evaluate(model(), [(np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.uint8))]),
    lambda root: kseg.evaluate(model(), [(np.zeros((0, 4, 4, 3), np.uint8), np.zeros((0, 4, 4), np.uint8))]),
    lambda root: kseg.train("unet", root / "records", root / "out", epochs=1, optimizer="sgd", momentum=1.5),
    lambda root: kseg.train(grey, root / "records", root / "out", epochs=1),
    lambda root: kseg.train(Subclassed, root / "records", root / "out", epochs=1),
    lambda root: kseg.export_saved_model(
        model(), root / "out", label_set={"name": "n", "classes": ["a"] * 9, "palette": [[0, 0, 0]] * 9}
    ),
    lambda root: kseg.export_saved_model(
        model(), root / "out", label_set={"name": "n", "classes": ["a", "b", "c"], "palette": [["x"]] * 3}
    ),
    lambda root: kseg.export_saved_model(3, root / "out"),
    lambda root: kseg.export_saved_model(model(), root / "out"),
    lambda root: kseg.export_saved_model(model(), root / "out", label_set=["a"]),
    lambda root: kseg.export_saved_model(model(), root / "out", label_set={"name": "n"}),
    lambda root: kseg.compare(None, root / "records", root / "out"),
    lambda root: kseg.compare("a.keras", root / "records", root / "out"),
    lambda root: kseg.compare([model(), model()], root / "records", root / "out"),
    lambda root: kseg.compare({"a": model(), 2: model()}, root / "records", root / "out"),
    lambda root: kseg.compare({"a": model(), "b": 3}, root / "records", root / "out"),
    lambda root: kseg.study(study_of(root) | {3: 4}),
    lambda root: kseg.study(study_of(root), engine=["local"]),
    lambda root: kseg.study(study_of(root), equivalence="0.01"),
    lambda root: kseg.study(study_of(root) | {"seeds": "3"}),
    lambda root: kseg.study(study_of(root) | {"models": [{"name": "unet", "flags": {"batch_size": [3]}}]}),
    lambda root: kseg.study(study_of(root) | {"output": str(root / "records")}),
    lambda root: prepare_dataset(["folder"], root / "source", root / "out"),
    lambda root: prepare_dataset("folder", root / "source", root / "out", shards="2"),
    lambda root: prepare_dataset("folder", root / "source", root / "out", workers=0),
    lambda root: prepare_dataset("folder", root / "source", root / "out", store_size=32),
    lambda root: dataset.draw_cityscapes(root / "out", train="3"),
    lambda root: losses.CrossEntropy(class_weights="1,2"),
    lambda root: losses.CrossEntropy(class_weights=3),
    lambda root: SegmentationLoss(class_weights=[1, [2]]),
    lambda root: SegmentationLoss(loss=3),
    lambda root: SegmentationLoss("focal", focal_gamma="2"),
    lambda root: metrics.SegmentationScores("3"),
    lambda root: metrics.SegmentationScores(3, average=["macro"]),
    lambda root: metrics.confusion_matrix(np.zeros(3, int), np.zeros(3, int), "3"),
    lambda root: layers.Preprocess(1, (1, 1, 1)),
    lambda root: layers.Preprocess((0, 0, 0), "111"),
    lambda root: layers.Preprocess((0, 0, 0), (1, 1, 1), multiple="32"),
    lambda root: layers.Preprocess((0, 0, 0), (1, 1, 1), size=32),
]


@pytest.mark.parametrize("call", BUILDS)
def test_a_wrong_argument_of_a_build_is_an_input_error(call):
    with pytest.raises(InputError):
        call()


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_argument_is_an_input_error(call, place):
    with pytest.raises(InputError):
        call(place)
    assert not (place / "out").exists()


COVERING = (
    "r2unet",
    "r2unet_fischer2021",
    "segnet_aspp",
    "segnet_aspp_fischer2021",
    "deeplabv3",
    "segformer",
)  # these have all options


@pytest.mark.parametrize("name", COVERING)
def test_a_wrong_option_of_a_builder_is_an_input_error(name):
    """Values of a wrong type or out of range."""
    assert {option for other in MODELS for option in options_of(other)} == set().union(*map(options_of, COVERING))
    for option in options_of(name):
        for value in (["x"], 1j, -1, "x"):
            with pytest.raises(InputError):
                kseg.build_model(name, (32, 32, 3), 3, **({"base_filters": 2} | {option: value}))


@pytest.mark.parametrize("name", COVERING)
def test_whole_numbers_of_numpy_are_whole_numbers(name):
    """Of every option that is one: the model is that of Python's numbers, its configuration too."""
    options = {"base_filters": 2, "seed": 1, "steps": 1, "depth": 2, "output_stride": 16}
    options = {option: value for option, value in options.items() if option in options_of(name)}
    shape = (32, 32, 3)
    if "rates" in options_of(name):
        options["rates"] = [1, 2]
    numpy = {
        option: np.array(value) if isinstance(value, list) else np.int64(value) for option, value in options.items()
    }
    numpy = {option: list(value) if value.ndim else value for option, value in numpy.items()}
    expected = kseg.build_model(name, shape, 3, **options)
    found = kseg.build_model(name, tuple(map(np.int32, shape)), np.uint8(3), **numpy)
    assert [w.shape for w in found.weights] == [w.shape for w in expected.weights]
    text = [re.sub(r"_\d+", "", made.to_json()) for made in (found, expected)]
    assert text[0] == text[1]


def test_records_are_the_same_of_numpys_whole_numbers(place, tmp_path):
    """The options are in the manifest, as JSON."""
    options = {"store_size": (16, 24), "shards": 2, "workers": 1}
    numpy = {"store_size": (np.int64(16), np.uint8(24)), "shards": np.int32(2), "workers": np.int64(1)}
    for name, values in {"python": options, "numpy": numpy}.items():
        prepare_dataset("folder", place / "source", tmp_path / name, progress=False, **values)
    for path in (tmp_path / "python").iterdir():
        assert (tmp_path / "numpy" / path.name).read_bytes() == path.read_bytes()


def test_builders_take_numpys_whole_numbers_by_themselves():
    made = MODELS["r2unet"]((32, 32, 3), 3, base_filters=np.int64(2), depth=np.int32(2), steps=np.int16(1))
    assert made.get_layer("logits").filters == 3 and made.count_params() > 0


def planted(*_, **__):
    raise TypeError("planted")


DEFECTS = {
    "kseg.data.records.manifest._split": ["compare", "train"],
    "kseg.data.records.manifest.check_layout": ["evaluate"],
    "kseg.data.labels.DatasetInfo.from_json": ["evaluate"],
    "kseg.layers.preprocessing.check_whole": ["predict", "export", "compare"],
    "kseg.layers.preprocessing.check_divides": ["predict"],
    "kseg.inference.predictor.logits_at": ["evaluate", "predict"],
    "kseg.export.exported_facts.preprocess_layer": ["export"],
    "kseg.models.unet._upsampling": ["train"],
    "kseg.score_table.five_of_counts": ["evaluate"],
    "kseg.data.records.prepare._differences": ["prepare_data"],
    "kseg.io.images._header": ["predict"],
}


@pytest.mark.parametrize(("where", "script"), [(where, s) for where, scripts in DEFECTS.items() for s in scripts])
def test_a_defect_of_ksegs_is_no_users_mistake(where, script, place, tmp_path, monkeypatch):
    """A function deep inside that fails with TypeError comes out of the script as that, not as one line."""
    monkeypatch.setattr(command_line, "_show_log", lambda: None)
    main = importlib.import_module(f"kseg.commands.{script.removesuffix('_data')}_command")
    made = labelled_file(place)
    data = f"--data_dir={place / 'records'}"
    lines = {
        "evaluate": [f"--model={made}", data, f"--output={tmp_path}/scores.json"],
        "predict": [f"--model={made}", f"--images={place}/image.png", f"--output={tmp_path}/out"],
        "export": [f"--model={made}", f"--output={tmp_path}/out"],
        "compare": [str(made), str(place / "again.keras"), data, f"--output={tmp_path}/out"],
        "train": ["--model=unet", "--base_filters=2", data, f"--workdir={tmp_path}/run", "--epochs=1"],
        "prepare_data": ["--dataset=folder", f"--source={place}/source", f"--output={place}/records", "--shards=2"],
    }
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *lines[script]])
    flag_values = main.FLAGS
    monkeypatch.setattr(where, planted)
    with pytest.raises(TypeError, match="planted"):
        command_line.start(main.run, flag_values, takes_arguments=script == "compare")


def labelled_file(place):
    """The path of a .keras file that carries its classes; a second one lies beside it."""
    for name in ("again.keras", "labelled.keras"):
        if not (place / name).exists():
            made = labelled()
            made.get_layer("preprocess").label_set = (
                manifest.load_manifest(place / "records").info.label_set().to_json()
            )
            made.save(place / name)
    return place / name


def test_a_manifest_of_other_types_is_refused(place, tmp_path):
    """Whatever value stands anywhere in dataset.json, reading it gives a manifest or an InputError."""
    whole = json.loads((place / "records" / "dataset.json").read_text())
    for path in (place / "records").iterdir():
        os.link(path, tmp_path / path.name)
    file = tmp_path / "dataset.json"
    refused = 0
    for keys in list(paths_of(whole)):
        for value in (None, True, -1, 2**70, 0.5, "x", [], {}, [[]], {"x": 1}):
            changed = json.loads(json.dumps(whole))
            part = functools.reduce(lambda at, key: at[key], keys[:-1], changed)
            part[keys[-1]] = value
            file.unlink()
            file.write_text(json.dumps(changed))
            try:
                manifest.load_manifest(tmp_path)
            except InputError:
                refused += 1
    assert refused > 300


def paths_of(value, above=()):
    """The keys that lead to every part of a JSON value; of a long list to its first two."""
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:2] if isinstance(value, list) else ()
    for key, part in items:
        yield (*above, key)
        yield from paths_of(part, (*above, key))
