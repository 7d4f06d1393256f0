import importlib
import json
import os
import signal
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tiny
from PIL import Image

import kseg
from kseg.export import EXPORTERS, savedmodel
from kseg.inference.predict_files import predict_files
from kseg.layers.preprocessing import preprocess_layer
from kseg.models import build_model

ALONE = """
import json, sys
import numpy as np
import tensorflow as tf
for folder in sys.argv[1:]:
    model = tf.saved_model.load(f"{folder}/saved_model")
    images = np.load(f"{folder}/images.npz")
    out = {}
    for key in images.files:
        if key.startswith("encoded"):
            answer = model.signatures["encoded"](encoded=tf.constant([file.tobytes() for file in images[key]]))
        else:
            answer = model.signatures["serving_default"](images=tf.constant(images[key]))
        out[key] = answer["labels"].numpy()
        out[key + "_confidence"] = answer["confidence"].numpy()
    np.savez(f"{folder}/out.npz", **out)
assert "kseg" not in sys.modules, "kseg must not be needed"
"""


def test_a_preprocess_layer_inside_of_a_nested_model_is_found(tmp_path):
    """In a model in a model: its classes and colours are carried by predict and export."""
    inner = tiny.brightness_model((32, 48, 3))
    image = keras.Input((32, 48, 3))
    model = keras.Sequential([keras.Input((32, 48, 3)), keras.Model(image, inner(image))])
    assert preprocess_layer(model) is inner.layers[1] and preprocess_layer(keras.Sequential([image])) is None
    preprocess_layer(model).label_set = tiny.LABELS
    model.save(tmp_path / "nested.keras")
    again = kseg.load_model(tmp_path / "nested.keras")
    pixels = np.full((32, 48, 3), 200, np.uint8)  # brighter than 160: the third class
    Image.fromarray(pixels).save(tmp_path / "a.png")
    predict_files(again, [tmp_path / "a.png"], tmp_path / "labels")
    assert (np.asarray(Image.open(tmp_path / "labels" / "color" / "a.png")) == tiny.LABELS["palette"][2]).all()
    kseg.export_saved_model(again, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert facts["classes"] == tiny.LABELS["classes"] and (kseg.predict(tmp_path / "out", pixels) == 2).all()


@pytest.mark.parametrize("name", ["old.h5", "named.keras"])
def test_an_hdf5_file_is_told_as_what_it_is(name, tmp_path):
    tiny.brightness_model((8, 8, 3)).save(tmp_path / "old.h5")
    (tmp_path / "named.keras").write_bytes((tmp_path / "old.h5").read_bytes())
    with pytest.raises(kseg.InputError, match=f"{name} begins as an HDF5 file.* save it as a .keras file"):
        kseg.load_model(tmp_path / name)


def test_a_softmax_is_told_by_the_export(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1, activation="softmax")])
    with pytest.warns(UserWarning, match="ends in a softmax, but kseg's losses and exports take logits"):
        kseg.export_saved_model(model, tmp_path / "out", label_set=tiny.LABELS)


@pytest.mark.parametrize("swallowed", [False, True])
def test_ctrl_c_ends_an_export_and_leaves_nothing(swallowed, tmp_path, monkeypatch):
    """Also where it lands in a callback, whose exceptions Python ignores; what was exported before stays."""
    write = savedmodel.write

    def interrupted(*arguments):
        write(*arguments)
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            if not swallowed:
                raise

    model = tiny.brightness_model((8, 8, 3))
    kseg.export_saved_model(model, tmp_path / "old", label_set=tiny.LABELS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(savedmodel, "write", interrupted)
    for name in ("old", "new"):
        with pytest.raises(KeyboardInterrupt):
            kseg.export_saved_model(model, tmp_path / name, label_set=tiny.LABELS)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "new").exists() and signal.getsignal(signal.SIGINT) is signal.default_int_handler


MODELS = {  # pooling with positions in both; a small one where the size is fixed, for writing one takes a while
    "fixed": tiny.build_tiny,
    "free": lambda: build_model("segnet_aspp", (None, None, 3), 3, base_filters=2),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """For each of MODELS what `export` gives, and what one process of TensorFlow alone gives for the images of both."""
    exports = {name: export(tmp_path_factory.mktemp(name), build) for name, build in MODELS.items()}
    command = [sys.executable, "-c", ALONE, *(str(folder) for _, folder, _ in exports.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: (*parts, dict(np.load(parts[1] / "out.npz"))) for name, parts in exports.items()}


@pytest.fixture(params=MODELS)
def exported(request, both):
    return both[request.param]


def export(folder, build):
    """A model with uneven weights, its folder with the SavedModel, and images that it was given."""
    keras.utils.set_random_seed(1)
    model = build()
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:  # zero biases and unit scales would leave much untested
        variable.assign(variable + random.normal(0, 0.1, variable.shape))
    model.get_layer("preprocess").label_set = tiny.LABELS
    kseg.export_saved_model(model, folder / "saved_model")
    smooth = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize((70, 50), Image.Resampling.BICUBIC)
    for kind in ("png", "jpeg"):
        smooth.save(folder / f"image.{kind}")
    images = {
        "one": np.asarray(smooth)[None],
        "two": random.integers(0, 256, (2, 32, 64, 3), np.uint8),
        **{f"encoded_{kind}": np.fromfile(folder / f"image.{kind}", np.uint8)[None] for kind in ("png", "jpeg")},
        "encoded_twice": np.stack([np.fromfile(folder / "image.png", np.uint8)] * 2),
    }
    np.savez(folder / "images.npz", **images)
    return model, folder, images


def test_signatures_equal_predict_without_kseg(exported):
    model, folder, images, got = exported
    assert got["one"].dtype == np.uint8 and got["one"].shape == (1, 50, 70)
    assert np.array_equal(got["one"][0], kseg.predict(model, images["one"][0]))
    assert np.array_equal(got["two"], np.stack(kseg.predict(model, list(images["two"]))))
    for kind in ("png", "jpeg"):
        assert np.array_equal(got[f"encoded_{kind}"], kseg.predict(model, folder / f"image.{kind}")[None])
    assert np.array_equal(got["encoded_twice"], np.repeat(got["encoded_png"], 2, axis=0))
    assert got["encoded_twice_confidence"].shape == (2, 50, 70)
    assert len(np.unique(got["one"])) > 1  # else this shows nothing


def test_confidence_is_the_softmax_of_the_label(exported):
    from kseg.inference.logits import logits_at

    model, _, images, got = exported
    logits = np.asarray(logits_at(model, images["two"], 32, 64), np.float64)
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(got["two_confidence"], softmax.max(-1), rtol=1e-4)
    assert got["one_confidence"].shape == (1, 50, 70) and got["one_confidence"].dtype == np.float32


def test_classes_travel_in_the_folder(exported):
    facts = json.loads((exported[1] / "saved_model" / "classes.json").read_text())
    assert tiny.LABELS.items() <= facts.items() and facts["ignore_label"] == 255
    assert not list(exported[1].glob(".tmp*"))


def test_a_saved_model_predicts_and_evaluates_like_its_model(exported):
    model, folder, images, _ = exported
    truth = np.random.default_rng(2).integers(0, 3, (2, 32, 64), np.uint8)
    pairs = list(zip(images["two"], truth, strict=True))
    loaded = kseg.load_model(folder / "saved_model")
    assert np.array_equal(kseg.predict(loaded, images["one"][0]), kseg.predict(model, images["one"][0]))
    expected = kseg.evaluate(model, pairs)
    assert np.array_equal(kseg.evaluate(loaded, pairs).confusion_matrix, expected.confusion_matrix)
    assert str(kseg.evaluate(folder / "saved_model", pairs)) == str(expected)


def test_the_encoded_signature_refuses_several_sizes_and_takes_pixels_as_stored(exported):
    """Phones store a photograph sideways with an orientation: predict turns it, the graph cannot."""
    import tensorflow as tf

    _, folder, images, _ = exported
    serve = tf.saved_model.load(str(folder / "saved_model")).signatures["encoded"]
    assert serve.structured_input_signature[1]["encoded"].shape.as_list() == [None]
    png = (folder / "image.png").read_bytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / "image.png").save(folder / "turned.png", exif=exif)
    turned = (folder / "turned.png").read_bytes()
    assert np.array_equal(serve(encoded=tf.constant([turned]))["labels"], serve(encoded=tf.constant([png]))["labels"])
    loaded = kseg.load_model(folder / "saved_model")
    upright = np.rot90(images["one"][0], -1)
    assert np.array_equal(kseg.predict(loaded, turned), kseg.predict(loaded, np.ascontiguousarray(upright)))
    Image.open(folder / "image.png").crop((0, 0, 60, 50)).save(folder / "narrow.png")
    batch = tf.constant([png, (folder / "narrow.png").read_bytes()])
    with pytest.raises(tf.errors.InvalidArgumentError, match="(?s)must be of one size, got .*50 70.*50 60"):
        serve(encoded=batch)


def test_what_cannot_be_exported_is_refused(both, tmp_path):
    model = tiny.build_tiny()
    with pytest.raises(ValueError, match="no class names"):
        kseg.export_saved_model(model, tmp_path / "saved_model")
    with pytest.raises(ValueError, match="this one is read as SavedModel"):
        kseg.export_saved_model(both["fixed"][1] / "saved_model", tmp_path / "again")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(ValueError, match="thesis holds chapter.txt, which kseg did not write"):
        kseg.export_saved_model(model, tmp_path / "thesis", label_set=tiny.LABELS)
    with pytest.raises(ValueError, match=r"must not end in \.tflite, got .*\. Format litert writes such a file"):
        kseg.export_saved_model(model, tmp_path / "car.tflite", label_set=tiny.LABELS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def write_labels(model, path, quantize=None, calibration=None):
    """A format as one writes it: here a SavedModel under a name of its own."""
    return savedmodel.write(model, path)


def test_an_added_format_is_a_choice_of_the_script(tmp_path, monkeypatch):
    """And it is proved like every other."""
    monkeypatch.setitem(sys.modules, "added", types.SimpleNamespace(write=write_labels, embed=savedmodel.embed))
    added = EXPORTERS["savedmodel"]._replace(module="added", help="a SavedModel by another name")
    monkeypatch.setitem(EXPORTERS, "added", added)
    monkeypatch.delitem(sys.modules, "kseg.commands.export_command", raising=False)
    script = importlib.import_module("kseg.commands.export_command")
    monkeypatch.delitem(sys.modules, "kseg.commands.export_command")
    model = tiny.brightness_model((8, 8, 3))
    preprocess_layer(model).label_set = tiny.LABELS
    model.save(tmp_path / "tiny.keras")
    assert script.FLAGS["format"].default == "savedmodel"
    assert "a SavedModel by another name" in " ".join(script.FLAGS.get_help().split())
    script.FLAGS(["export.py", f"--model={tmp_path}/tiny.keras", f"--output={tmp_path}/out", "--format=added"])
    script.run(script.FLAGS)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["format"] == "added"


def test_names_for_fewer_classes_than_the_model_has_are_refused(tmp_path):
    model = tiny.brightness_model()
    two = {"name": "x", "classes": ["a", "b"], "palette": [[0, 0, 0], [9, 9, 9]]}
    for carried in (None, tiny.LABELS):
        model.layers[1].label_set = carried
        with pytest.raises(kseg.InputError, match=r"names of the model's 3 classes, got \['a', 'b'\]"):
            kseg.export_saved_model(model, tmp_path / "out", label_set=two)
    assert not (tmp_path / "out").exists()
