import functools
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

import kseg
from kseg.commands import train_command
from kseg.data.pipeline.load import open_split
from kseg.inference.compatibility import check_output
from kseg.losses import loss_terms
from kseg.metrics import Scores
from kseg.runs import checkpoints
from kseg.runs.workdir import RunFolder
from kseg.settings import make_settings
from kseg.training import screen
from kseg.training.build import build_for_run
from kseg.training.schedules import Schedule
from kseg.training.trainers import make_trainer, tensorflow
from kseg.training.trainers.base import choose_devices


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny.write_records(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def whole(records, tmp_path_factory):
    """A run that was never stopped: its folder and its history."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    _, history = kseg.train(tiny.build_tiny, records, workdir, **tiny.SETTINGS)
    return workdir, history


def weights(path):
    return [np.asarray(variable.value) for variable in keras.models.load_model(path, compile=False).variables]


def test_a_run_leaves_what_the_design_says(whole):
    workdir, history = whole
    names = {path.name for path in workdir.iterdir()}
    files = {"best.keras", "last.keras", "flags.txt", "history.csv", "predictions.png", "confusion.png", "scores.json"}
    files |= {"README.md", "model.json"}  # the model is a function's
    assert names == files | {"checkpoints", "logs", "saved_model"}  # and no temporary file
    assert [row["step"] for row in history] == [3, 6, 9]  # 7 images, whole batches of 2
    assert list((workdir / "logs").glob("events*"))
    scores = Scores.from_json(workdir / "scores.json")
    assert scores.images == 5 and scores.classes == ("road", "car", "sky")
    best = max(row["val_mean_iou"] for row in history)
    chosen = next(row for row in history if row["val_mean_iou"] == best)  # the first of equals
    assert (scores.epoch, scores.step) == (chosen["epoch"], chosen["step"])
    assert scores.mean_iou == pytest.approx(best, abs=1e-12)  # what the exported file scores is what was measured


def test_it_learns(whole):
    losses = [row["loss"] for row in whole[1]]
    assert losses[-1] < losses[0] < 2  # ln 3 = 1.1 is chance


def test_a_finished_run_says_so_and_trains_nothing(whole, records, capsys):
    before = (whole[0] / "last.keras").stat().st_mtime_ns
    model, history = kseg.train(tiny.build_tiny, records, whole[0], **tiny.SETTINGS)
    assert "is finished" in capsys.readouterr().out
    assert (whole[0] / "last.keras").stat().st_mtime_ns == before
    assert [row["step"] for row in history] == [3, 6, 9] and isinstance(model, keras.Model)


def test_contradicting_settings_stop_with_the_difference(whole, records):
    before = sorted(path.name for path in whole[0].iterdir())
    with pytest.raises(ValueError, match=r"other settings:\n  learning_rate: stored '0.01', now '0.1'\n"):
        kseg.train(tiny.build_tiny, records, whole[0], **{**tiny.SETTINGS, "learning_rate": 0.1})
    assert sorted(path.name for path in whole[0].iterdir()) == before


def test_a_plain_keras_model_is_trained_scored_and_exported(records, tmp_path):
    def build():
        return keras.Sequential([keras.Input((32, 64, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(3, 1)])

    kseg.train(build, records, tmp_path / "run", **{**tiny.SETTINGS, "epochs": 1})
    facts = json.loads((tmp_path / "run" / "saved_model" / "classes.json").read_text())
    assert facts["classes"] == ["road", "car", "sky"]
    assert Scores.from_json(tmp_path / "run" / "scores.json").images == 5


def test_drives_that_the_names_show_are_scored_too(records, tmp_path):
    moved = shutil.copytree(records, tmp_path / "records")
    manifest = json.loads((moved / "dataset.json").read_text())
    manifest["drive"] = r"(?:train|val)_([01]|.).*"  # val_0 to val_4: five drives
    (moved / "dataset.json").write_text(json.dumps(manifest))
    kseg.train(tiny.build_tiny, moved, tmp_path / "run", **{**tiny.SETTINGS, "epochs": 1})
    scores = Scores.from_json(tmp_path / "run" / "scores.json")
    again = kseg.evaluate(tmp_path / "run", moved, group_by="drive")
    assert scores.group_by == "drive" and scores.groups == again.groups and list(scores.groups) == list("01234")
    card = (tmp_path / "run" / "README.md").read_text()
    for drive, row in again.groups.items():
        assert f"| {drive} | 1 | {row['mean_iou']:.4f} | {row['pixel_accuracy']:.4f} | " in card


def test_a_run_is_loaded_by_the_weights_it_kept(records, tmp_path):
    kseg.train(tiny.build_tiny, records, tmp_path / "run", keep="last", **tiny.SETTINGS)
    loaded = [np.asarray(variable.value) for variable in kseg.load_model(tmp_path / "run").variables]
    assert all(np.array_equal(a, b) for a, b in zip(loaded, weights(tmp_path / "run" / "last.keras"), strict=True))
    (tmp_path / "run" / "last.keras").unlink()
    with pytest.raises(ValueError, match="has not finished: there is no last.keras"):
        kseg.load_model(tmp_path / "run")


class Shake(keras.callbacks.Callback):
    """Spoils the third epoch (steps 7 to 9) from its first step on, notes each epoch's weights, dies at a step."""

    def __init__(self, die_before_step=None):
        super().__init__()
        self.die_before_step = die_before_step
        self.ends = []

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) + 1 == self.die_before_step:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 7:
            kernel = self.model.get_layer("logits").kernel
            kernel.assign(kernel * -30)

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self.model.get_weights())


def test_the_epoch_of_lowest_training_loss_is_kept_and_resumed(records, tmp_path):
    settings = {**tiny.SETTINGS, "keep": "lowest_loss", "validate_every_epochs": 2}
    watch = Shake(die_before_step=9)
    with pytest.raises(KeyboardInterrupt):  # it goes on from the checkpoint of step 8, in the spoilt epoch
        kseg.train(tiny.build_tiny, records, tmp_path / "run", callbacks=[watch], **settings)
    _, history = kseg.train(tiny.build_tiny, records, tmp_path / "run", callbacks=[Shake()], **settings)
    lowest = int(np.argmin([row["loss"] for row in history]))
    assert lowest < 2 and "val_mean_iou" not in history[0]  # chosen without validation, and not the last epoch
    kept = kseg.load_model(tmp_path / "run").get_weights()
    assert all(np.array_equal(got, expected) for got, expected in zip(kept, watch.ends[lowest], strict=True))


def test_crops_more_outputs_and_smooth_labels_through_a_whole_run(records, tmp_path):
    """A model of free size, trained on 16x16 out of 41x70, works on whole images at 41x70 (padded to 44x72)."""
    settings = {"height": 41, "width": 70, "crop_height": 16, "crop_width": 16, "num_outputs": 7}
    settings |= {"label_resize": "smooth", "class_weights": "median_frequency", "scale_min": 0.5}
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            layer = self.model.get_layer("preprocess")
            original = layer.call
            layer.call = lambda x: (seen.append(tuple(x.shape)), original(x))[1]

    options = {"base_filters": 2, "depth": 3}
    common = {**tiny.SETTINGS, **settings, "epochs": 1}
    kseg.train("unet", records, tmp_path / "run", model_options=options, callbacks=[Look()], **common)
    assert set(seen) == {(2, 16, 16, 3), (None, 44, 72, 3)}
    model = kseg.load_model(tmp_path / "run")
    assert model.input_shape == (None, None, None, 3) and model.output_shape[-1] == 7
    assert model.get_layer("preprocess").size == (41, 70)
    table = json.loads((tmp_path / "run" / "scores.json").read_text())
    kseg.evaluate(tmp_path / "run" / "saved_model", records).to_json(tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert again.pop("reads") == "SavedModel"
    assert again | {"epoch": 1, "step": 3} == table  # 7 images by two
    flags = (tmp_path / "run" / "flags.txt").read_text().splitlines()
    assert {"--crop_height=16", "--num_outputs=7", "--label_resize=smooth", "--keep=best"} <= set(flags)


def test_a_run_of_a_version_with_other_settings_is_refused_in_one_line(whole, records, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(whole[0], workdir)
    with open(workdir / "flags.txt", "a") as file:
        file.write("--momentun=0.8\n")
    message = r"flags.txt names momentun, unknown to this kseg: another version wrote the run. Use a new workdir"
    with pytest.raises(ValueError, match=message):
        kseg.train(tiny.build_tiny, records, workdir, **tiny.SETTINGS)
    assert kseg.load_model(workdir).name == "tiny"  # its weights are none the worse
    flags = (workdir / "flags.txt").read_text()
    assert "--keep=best" in flags
    gone = ("on_conflict=new", "keep_checkpoints=5", "log_every_steps=1")  # flags that earlier versions had
    old = flags.replace("momentun=0.8\n", "\n--".join(gone) + "\n")
    (workdir / "flags.txt").write_text(old)
    assert RunFolder(workdir).stored() == RunFolder(whole[0]).stored()
    capsys.readouterr()
    kseg.train(tiny.build_tiny, records, workdir, **tiny.SETTINGS)
    assert "is finished" in capsys.readouterr().out


def test_a_free_model_is_bound_to_a_size_only_by_the_settings(records):
    source = open_split(records, "train")
    build = functools.partial(kseg.build_model, "unet", (None, None, 3), 3, base_filters=2, depth=2)
    for values, size in (({}, None), ({"height": 64, "width": 96}, (64, 96))):
        model = build_for_run(build, {}, make_settings(epochs=1, **values), source, (64, 96))
        assert model.get_layer("preprocess").size == size


def test_loss_and_class_weights_reach_the_step(records, tmp_path):
    """The first step's loss, before any update. Focal loss without an exponent is cross entropy, so 3/4 of both with
    all weights 2 is 3 times one; top-k of all pixels is their mean in each image, near 1 here (ln 3 is chance)."""
    flags = ["--loss=0.75*cross_entropy+0.75*focal+0.01*top_k_cross_entropy", "--class_weights=2,2,2"]
    train_command.FLAGS(["train.py", *flags, "--focal_gamma=0", "--top_k_share=1"])
    names = ("loss", "class_weights", "focal_gamma", "top_k_share")
    kinds = {"plain": {}, "median": {"class_weights": "median_frequency"}}
    kinds["sum"] = {name: train_command.FLAGS[name].value for name in names}
    losses = {}
    for name, kind in kinds.items():
        settings = {**tiny.SETTINGS, "epochs": 0, "train_steps": 1, **kind}
        losses[name] = kseg.train(tiny.build_tiny, records, tmp_path / name, **settings)[1][0]["loss"]
    assert losses["plain"] != pytest.approx(losses["median"], rel=1e-3)
    assert losses["sum"] == pytest.approx(3 * losses["plain"] + 0.02 * losses["plain"], rel=2e-3)
    assert losses["sum"] > 3.005 * losses["plain"]
    assert RunFolder(tmp_path / "sum").stored()["class_weights"] == "2,2,2"


@keras.saving.register_keras_serializable("tests")
class InfiniteSlope(keras.layers.Layer):
    """Adds sqrt(w) with w = 0: the output is finite, the gradient of w is not."""

    def build(self, shape):
        self.w = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        return x + keras.ops.sqrt(self.w)


def test_a_gradient_that_is_not_finite_stops_too(records, tmp_path):
    def build():
        layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(3, 1), InfiniteSlope()]
        return keras.Sequential([keras.Input((32, 64, 3)), *layers, keras.layers.Conv2D(3, 1)])

    with pytest.raises(FloatingPointError, match="gradient of step 1 "):
        kseg.train(build, records, tmp_path / "run", **tiny.SETTINGS)
    assert not checkpoints.list_checkpoints(tmp_path / "run" / "checkpoints")


def test_the_schedule_by_hand():
    poly = Schedule(0.1, 100, "poly", warmup_steps=10)
    assert float(poly(0)) == pytest.approx(0.01)  # a tenth of the way up, (1 - 0)^.9
    assert float(poly(50)) == pytest.approx(0.1 * 0.5**0.9)
    assert float(poly(100)) == 0
    cosine = Schedule(0.1, 100, "cosine")
    assert float(cosine(0)) == pytest.approx(0.1) and float(cosine(50)) == pytest.approx(0.05)


def test_a_group_of_machines_is_refused(records, tmp_path, monkeypatch):
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": task}))
    with pytest.raises(ValueError, match=r"runs on one machine \(KERAS_BACKEND=tensorflow\), but .* names 2 workers"):
        kseg.train(tiny.build_tiny, records, tmp_path / "run", **tiny.SETTINGS)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1"]}, "task": task}))
    assert make_trainer("one", 2).devices == 1


def test_auto_takes_the_most_devices_that_divide_the_batch():
    assert choose_devices("auto", 6, ["g0", "g1", "g2", "g3"], ["cpu"]) == ["g0", "g1", "g2"]
    assert choose_devices("auto", 6, [], ["cpu0", "cpu1"]) == ["cpu0"]
    assert choose_devices("one", 6, ["g0", "g1"], ["cpu"]) == ["g0"]
    with pytest.raises(ValueError, match="4 devices, got 6 images. Take 8"):
        choose_devices("mirrored", 6, ["g0", "g1", "g2", "g3"], ["cpu"])


def test_a_torn_checkpoint_names_the_one_before(whole, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(whole[0] / "checkpoints", folder)
    earlier, last = checkpoints.list_checkpoints(folder)
    last.write_bytes(last.read_bytes()[:-200])
    model = tiny.build_tiny()
    with pytest.raises(ValueError, match=f"{last.name} is torn .*continue from {earlier.name}"):
        checkpoints.restore_checkpoint(last, {"model": model.variables})


def test_a_foreign_checkpoint_changes_nothing(whole, tmp_path):
    path = checkpoints.list_checkpoints(whole[0] / "checkpoints")[-1]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    before = model.get_weights()
    with pytest.raises(ValueError, match="another model or optimizer"):
        checkpoints.restore_checkpoint(path, {"model": model.variables})
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


class Poison(keras.callbacks.Callback):
    """Makes a weight NaN when that many steps are done."""

    def __init__(self, after):
        super().__init__()
        self.after = after
        self.steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == self.after:
            kernel = self.model.get_layer("logits").kernel
            kernel.assign(kernel * np.nan)


def test_nan_names_the_step_and_keeps_the_last_good_checkpoint(records, tmp_path):
    # Looked at after step 6, the end of the second epoch; no checkpoint before.
    settings = {**tiny.SETTINGS, "checkpoint_every_steps": 100}
    with pytest.raises(FloatingPointError, match="loss of step 5 "):
        kseg.train(tiny.build_tiny, records, tmp_path / "run", callbacks=[Poison(after=4)], **settings)
    last = checkpoints.list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert last.name == "step-00000003.npz"
    with np.load(last) as arrays:
        assert all(np.isfinite(arrays[name]).all() for name in arrays.files)


def test_keras_callbacks_are_driven(records, tmp_path):
    calls = []

    class Recorder(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            calls.append((epoch, sorted(logs)[:2]))
            self.model.stop_training = epoch == 0

    _, history = kseg.train(
        tiny.build_tiny,
        records,
        tmp_path / "run",
        callbacks=[Recorder()],
        **{**tiny.SETTINGS, "epochs": 50, "validate_every_epochs": 9},
    )
    assert calls == [(0, ["learning_rate", "loss"])] and len(history) == 1
    assert (tmp_path / "run" / "scores.json").exists()  # an epoch that turns out to be the last is validated


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4},
        {"optimizer": "adamw", "weight_decay": 1e-2, "lr_schedule": "cosine", "warmup_steps": 2},
        {"ema_momentum": 0.5, "class_weights": "median_frequency", "keep": "last"},
        {"mixed_precision": "bfloat16", "class_weights": "inverse_sqrt_frequency", "loss": "cross_entropy+0.5*dice"},
        {"mixed_precision": "float16", "accumulate_steps": 2, "remat": True},
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values()),
)
def test_settings_train_and_score(settings, records, tmp_path):
    common = {**tiny.SETTINGS, "epochs": 0, "train_steps": 4, **settings}
    _, history = kseg.train(tiny.build_tiny, records, tmp_path / "run", **common)
    assert [row["step"] for row in history] == [3, 4] and np.isfinite(history[-1]["loss"])
    assert Scores.from_json(tmp_path / "run" / "scores.json").images == 5


def test_the_average_is_what_is_scored_and_saved(records, tmp_path):
    kseg.train(tiny.build_tiny, records, tmp_path / "plain", **tiny.SETTINGS)
    kseg.train(tiny.build_tiny, records, tmp_path / "average", ema_momentum=0.5, **tiny.SETTINGS)
    plain, average = (weights(tmp_path / name / "last.keras") for name in ("plain", "average"))
    assert not np.array_equal(plain[0], average[0])
    # The averaging changes no step: both runs took the same ones.
    rows = [(tmp_path / name / "history.csv").read_text().split("\n") for name in ("plain", "average")]
    assert [row.split(",")[3] for row in rows[0][1:4]] == [row.split(",")[3] for row in rows[1][1:4]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 1, "train_steps": 1}, "either epochs or train_steps"),
        ({}, "either epochs or train_steps"),
        ({"epochs": 1, "optimizer": "lion"}, "adam, adamw, sgd"),
        ({"epochs": 1, "height": 32}, "both height and width"),
        (
            {"epochs": 1, "crop_width": 32},
            "both crop_height and crop_width or neither, got crop_width=32 without crop_height.",
        ),
        ({"epochs": 1, "num_outputs": 255}, "num_outputs must be at most 254"),
        ({"epochs": 1, "keep": "first"}, "keep must be one of best, last, lowest_loss"),
        ({"epochs": 1, "label_resize": "bilinear"}, "label_resize must be one of nearest, smooth"),
        ({"epochs": 1, "scale_min": 3.0}, "scale_min must not exceed"),
        ({"epochs": 1, "batch_size": 0}, "batch_size must be at least 1"),
        ({"epochs": 1, "learning_rate": -0.1}, "learning_rate must be at least 0.0, got -0.1"),
        ({"epochs": 1, "ema_momentum": 1.0}, "ema_momentum must be below 1"),
        ({"epochs": 1, "accumulate_steps": 0}, "accumulate_steps must be at least 1"),
        ({"epochs": 1, "rate": 1}, "Unknown setting 'rate'. Settings are: height"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make_settings(**settings)


def plain(**options):
    """A model of one convolution to the three classes."""
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(3, 1, **options)]
    return keras.Sequential([keras.Input((32, 64, 3)), *layers])


def named_output():
    image = keras.Input((32, 64, 3))
    return keras.Model(image, {"logits": keras.layers.Conv2D(3, 1)(image)})


@pytest.mark.parametrize(
    "build",
    [
        lambda: plain(activation="softmax"),
        lambda: keras.Sequential([plain(), keras.layers.Softmax(dtype="float32")]),
        lambda: keras.Sequential([plain(strides=2, activation="softmax"), keras.layers.UpSampling2D(2)]),
    ],
    ids=["activation", "layer", "before upsampling"],
)
def test_a_model_that_ends_in_a_softmax_is_told_once(build, records, tmp_path):
    with pytest.warns(UserWarning) as caught:
        kseg.train(build, records, tmp_path / "run", **{**tiny.SETTINGS, "epochs": 0, "train_steps": 1})
    told = [warning for warning in caught if "ends in a softmax" in str(warning.message)]
    assert "Leave it out of the last layer" in str(told[0].message)
    # One place, so that Python's default shows the second one, of the export, no more.
    assert len({(warning.filename, warning.lineno) for warning in told}) == 1
    assert len({str(warning.message) for warning in told}) == 1


def test_logits_are_no_probabilities(records, tmp_path):
    """Also where they add up to one, by weights of 1/3 a class each, but some are below 0."""
    model = plain()
    model.layers[-1].set_weights([np.zeros((1, 1, 3, 3), np.float32), np.array([-1, 1, 1], np.float32)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_output(model, (32, 64))
    model.layers[-1].set_weights([np.zeros((1, 1, 3, 3), np.float32), np.array([0, 0.5, 0.5], np.float32)])
    with pytest.warns(UserWarning, match="ends in a softmax"):
        check_output(model, (32, 64))


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("segnot", {}, "Unknown model 'segnot'"),
        ("segnet", {"height": 48}, "multiples of 32"),
        (tiny.build_tiny, {"batch_size": 9}, "batch of 9 needs"),
        (
            tiny.build_tiny,
            {"batch_size": 4, "accumulate_steps": 3},
            "a multiple of accumulate_steps, got 4 and 3. Take 6",
        ),
        (tiny.build_tiny, {"strategy": "multiworker"}, "strategy multiworker needs TF_CONFIG"),
        ("segnet_aspp", {"batch_size": 2, "accumulate_steps": 2}, "batch of at least 2 images: aspp_image_bn"),
        ("segnet_aspp", {"batch_size": 1}, "batch of at least 2 images: aspp_image_bn"),
        (tiny.build_tiny, {"label_set": "all_ids"}, "all_ids"),
        (lambda: keras.Sequential([keras.Input((32, 64, 3)), keras.layers.Conv2D(7, 1)]), {}, "7 classes"),
        (tiny.build_tiny, {"width": 96}, r"takes images of \(32, 64\) .* the run's are \(32, 96\)"),
        (tiny.build_tiny, {"model_options": {"base_filters": 4}}, "model_options are for a model given by name"),
        ("segnet", {"model_options": {"rates": 3}}, "has no option rates"),
        (
            "unet",
            {"crop_height": 8, "crop_width": 32},
            "multiples of 16, got 8x32. Choose a size that fits, such as 16x32",
        ),
        (tiny.build_tiny, {"crop_height": 32, "crop_width": 32}, r"\(32, 64\). To train on crops, .*free sizes"),
        ("segnet", {"num_outputs": 2}, "num_outputs must be at least the 3 classes of label set train_ids, got 2"),
        (tiny.build_tiny, {"num_outputs": 7}, "The model has 3 outputs, but 7 are needed"),
        ("segnet_aspp", {"model_options": {"rates": 3}}, "rates must be a list of whole numbers"),
        (
            "unet",
            {"auxiliary_weight": 0.4, "model_options": {"base_filters": 1}},
            "needs a model with an auxiliary head",
        ),
        ("unet", {"encoder_lr_multiplier": 0.1, "model_options": {"base_filters": 1}}, "'unet' has no encoder"),
        ("segnet", {"init_from": "a", "model_options": {"encoder_weights": "b"}}, "both set the encoder's weights"),
        (lambda: "unet", {}, "The function must return a functional keras.Model with one input"),
        (lambda: named_output(), {}, "The function must return a functional keras.Model with one input"),
        # Strides of 2 without an upsampling; all frozen; a weight that is nan from the start.
        (
            lambda: plain(strides=2),
            {},
            r"logits of its images' size, \(32, 64\) \(height, width\), but gives \(16, 32\)",
        ),
        (lambda: plain(trainable=False), {}, "has no weights to train. Set trainable=True in the layers"),
        (
            lambda: plain(bias_initializer=keras.initializers.Constant(math.nan)),
            {},
            "All weights must be finite before the first step, but .*bias of .* is not",
        ),
    ],
)
def test_bad_input_writes_nothing(model, settings, message, records, tmp_path):
    with pytest.raises(ValueError, match=message):
        kseg.train(model, records, tmp_path / "run", **{**tiny.SETTINGS, **settings})
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_something_else_is_refused(records, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="holds files but no kseg run"):
        kseg.train(tiny.build_tiny, records, tmp_path, **tiny.SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_flags_file_repeats_the_run(whole):
    stored = RunFolder(whole[0]).stored()
    assert stored["model"] == "build_tiny" and stored["lr_schedule"] == "poly" and stored["epochs"] == "3"
    assert len(stored["records"]) == 64


def test_tensorboard_holds_scores_and_pictures(whole):
    (path,) = (whole[0] / "logs").glob("events*")
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(path)) for value in event.summary.value}
    assert {"train/loss", "learning_rate", "val/mean_iou", "val/f1", "images_per_second", "memory at most (GB)"} <= tags
    assert {"image | prediction | truth", "confusion matrix"} <= tags


@pytest.mark.slow
def test_several_replicas_equal_one(records, tmp_path, root):
    """Needs logical devices from the start of the process, so it runs in one of its own."""
    command = [sys.executable, str(root / "tests" / "programs" / "replicas.py"), str(records), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert pathlib.Path(tmp_path, "two", "scores.json").exists()


def test_the_clock_starts_when_the_step_is_compiled(records, tmp_path, monkeypatch, capsys):
    """The first of 7 // 2 = 3 steps an epoch is waited for, and counts in no rate and no time left.

    The clock of the epoch stands but for the two steps after the first, 1 s each: 2 images / 1 s. Three epochs of three
    steps: when the first is done 6 are left, of 1 s.
    """
    seconds = [0.0]
    monkeypatch.setattr(screen.EpochClock.__init__, "__defaults__", (lambda: seconds[0],))
    step = tensorflow.TensorFlowTrainer.train_step

    def train_step(self, number, batch):
        seconds[0] += 1000 if self.compiles(number) else 1
        step(self, number, batch)

    monkeypatch.setattr(tensorflow.TensorFlowTrainer, "train_step", train_step)
    kseg.train(tiny.build_tiny, records, tmp_path, **tiny.SETTINGS)
    out, err = capsys.readouterr()
    paces = [line for line in out.splitlines() if "images/s" in line]
    assert paces[0].startswith("epoch 1/3: loss ") and ", 2 images/s, 6 s left, " in paces[0] and len(paces) == 3
    assert "(best), 2 images/s" in paces[0]  # the first always is
    # The two timed steps are done, 6 s are left.
    line = r"^tiny on 1 CPU \(oneDNN \w+\), float32: 9 steps of 2 images in 3 epochs, about 6 s of training left$"
    assert re.search(line, out, re.MULTILINE)
    waited = [line for line in err.splitlines() if "compiling the training step" in line]
    assert waited[0] == "epoch 1/3: compiling the training step"


def test_a_step_that_is_compiled_anew_is_waited_for_again():
    """With frozen variables for two steps: the third is another graph."""
    trainer = make_trainer("one", 2)
    model = tiny.build_tiny()
    frozen = model.get_layer("first").trainable_variables
    optimizer = keras.optimizers.SGD(0.01)
    trainer.build(model, optimizer, 3, loss_terms("cross_entropy"), frozen=frozen, frozen_steps=2)
    batch = tf.zeros((2, 32, 64, 3), tf.uint8), tf.zeros((2, 32, 64), tf.uint8)
    compiled = []
    for number in (1, 2, 3, 4):
        compiled.append(trainer.compiles(number))
        trainer.train_step(number, batch)
    assert compiled == [True, False, True, False]
