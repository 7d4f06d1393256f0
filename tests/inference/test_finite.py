"""Scores that are nan or infinite are an error that names the image or the weight, by every road."""

import shutil

import keras
import numpy as np
import pytest
import tiny
from PIL import Image

import kseg
from kseg.inference.predict_files import predict_files
from kseg.io.errors import InputError, NotFiniteError
from kseg.layers import Preprocess


@keras.saving.register_keras_serializable("tests")
class Overflowing(keras.layers.Layer):
    """Infinite where an image has a pixel of pure magenta, which the streets that prove an export lack; else 1."""

    def call(self, x):
        magenta = keras.ops.all(keras.ops.cast(x, "int32") == (255, 0, 255), axis=-1)
        return 1 / keras.ops.cast(~keras.ops.any(magenta, axis=(1, 2))[:, None, None, None], "float32")


def build(bad=None, overflowing=False):
    """A model of three classes with labels; `bad` is put into its last bias."""
    image = keras.Input((None, None, 3))
    x = Preprocess((124, 116, 104), (60, 60, 60), name="preprocess")(image)
    x = keras.layers.Conv2D(3, 1, name="logits")(x)
    if overflowing:
        x = keras.layers.Multiply()([x, Overflowing()(image)])
    model = keras.Model(image, x)
    model.get_layer("preprocess").label_set = tiny.LABELS
    if bad is not None:
        model.get_layer("logits").bias.assign([0.0, bad, 0.0])
    return model


def pairs(magenta=()):
    """Four images and labels; those whose number is in `magenta` have one magenta pixel."""
    random = np.random.default_rng(0)
    for i in range(4):
        image = random.integers(0, 255, (8, 12, 3), np.uint8)
        if i in magenta:
            image[3, 4] = 255, 0, 255
        yield image, random.integers(0, 3, (8, 12), np.uint8)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_evaluate_names_the_image_and_the_weight(records, bad):
    model = build(bad)
    message = "scores for image val_0 are not finite: its weight logits/bias is not"
    with pytest.raises(NotFiniteError, match=message):
        kseg.evaluate(model, records, batch_size=2)
    with pytest.raises(NotFiniteError, match=r"scores for image 0 \(counted from 0\) are not finite"):
        kseg.evaluate(model, pairs())


def test_an_image_alone_is_named_by_its_number():
    model = build(overflowing=True)
    assert kseg.evaluate(model, pairs()).images == 4
    message = r"scores for image 2 \(counted from 0\) are not finite: its weights are finite, but too large"
    with pytest.raises(NotFiniteError, match=message):
        kseg.evaluate(model, pairs(magenta=(2, 3)))
    batch = tuple(np.stack(part) for part in zip(*pairs(magenta=(2,)), strict=True))
    with pytest.raises(NotFiniteError, match=message):
        kseg.evaluate(model, [batch])
    images = [image for image, _ in pairs(magenta=(3,))]
    with pytest.raises(NotFiniteError, match=r"scores for image 3 \(counted from 0\)"):
        kseg.predict(model, images)
    with pytest.raises(NotFiniteError, match="scores for the image are"):
        kseg.predict(model, images[3])
    assert len(kseg.predict(model, images[:3])) == 3


@pytest.mark.parametrize("training", [False, True])
def test_the_fischer2021_protocol(records, training):
    model = build(np.nan)
    model.get_layer("preprocess").size = (32, 64)
    with pytest.raises(NotFiniteError, match="scores for image val_0 are not finite"):
        kseg.evaluate(model, records, protocol="fischer2021", train_mode_statistics=training)
    with pytest.raises(NotFiniteError, match=r"scores for image 0 \(counted from 0\)"):
        kseg.evaluate(model, pairs(), protocol="fischer2021", train_mode_statistics=training)


def test_compare_names_the_model_too_and_leaves_no_page(records, tmp_path):
    with pytest.raises(NotFiniteError, match="^worse: The model's scores for image val_0"):
        kseg.compare({"better": build(), "worse": build(np.nan)}, records, tmp_path / "page")
    assert list(tmp_path.iterdir()) == []


def test_report_writes_nothing(records, tmp_path):
    from kseg.reports.evaluation_report import write_report

    with pytest.raises(NotFiniteError, match="scores for image val_0"):
        write_report(build(np.nan), records, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_predict_files_names_the_file_and_writes_nothing_of_it(tmp_path):
    model = build(overflowing=True)
    for name, (image, _) in zip("abcd", pairs(magenta=(1,)), strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    with pytest.raises(NotFiniteError, match=r"scores for .*/b\.png are not finite"):
        predict_files(model, [tmp_path / f"{name}.png" for name in "ab"], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "classes.json", "color"]


def test_an_export_is_refused_and_one_that_is_there_stays(tmp_path):
    kseg.export_saved_model(build(), tmp_path / "model")
    with pytest.raises(NotFiniteError, match="weight logits/bias is not finite"):
        kseg.export_saved_model(build(np.inf), tmp_path / "model")
    assert kseg.evaluate(tmp_path / "model", pairs()).images == 4


def test_an_exported_model_that_overflows(tmp_path):
    path = kseg.export_saved_model(build(overflowing=True), tmp_path / "model")
    assert kseg.evaluate(path, pairs()).images == 4
    with pytest.raises(NotFiniteError, match=r"scores for image 1 \(counted from 0\)"):
        kseg.evaluate(path, pairs(magenta=(1,)))
    assert issubclass(NotFiniteError, InputError)


def test_a_script_shows_one_line(records, tmp_path, call_script):
    build(np.nan).save(tmp_path / "broken.keras")
    arguments = (f"--model={tmp_path / 'broken.keras'}", f"--data_dir={records}")
    code, _, error = call_script("evaluate", *arguments)
    assert (
        code == 2
        and "image val_0 are not finite: its weight logits/bias is not finite." in error.strip().splitlines()[-1]
    )
    source = tmp_path / "images"
    source.mkdir()
    shutil.copy(records.parent / "source" / "val" / "images" / "val_1.png", source)
    arguments = (f"--model={tmp_path / 'broken.keras'}", f"--images={source}/*.png", f"--output={tmp_path / 'out'}")
    code, _, error = call_script("predict", *arguments)
    assert code == 2 and "val_1.png are not finite" in error


def test_a_model_of_more_classes_than_a_label_map_holds_is_refused(tmp_path):
    """Ids of 8 bits wrap: class 299 of 300 came out as 43."""
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Conv2D(300, 1)(image))
    pixels = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="holds at most 255 classes, but the model gives 300"):
        kseg.predict(model, pixels)
    labels = {"name": "many", "classes": [str(i) for i in range(300)], "palette": [[0, 0, 0]] * 300}
    with pytest.raises(ValueError, match="holds at most 255 classes, but the model gives 300"):
        kseg.export_saved_model(model, tmp_path / "out", label_set=labels)
    assert not list(tmp_path.iterdir())


def test_what_preprocessing_was_set_to_afterwards_counts(tmp_path):
    """The predictor is compiled and kept: a mean that is changed must not be that of the first call."""
    model = tiny.build_tiny()
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    before = kseg.predict(model, image)
    layer = model.get_layer("preprocess")
    layer.mean = (255.0, 0.0, 0.0)
    layer.scale = (1.0, 100.0, 100.0)
    after = kseg.predict(model, image)
    model.save(tmp_path / "a.keras")
    np.testing.assert_array_equal(after, kseg.predict(tmp_path / "a.keras", image))
    assert (before != after).any()
