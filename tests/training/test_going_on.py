"""A run goes on: longer than it was set to, without the files that it began from, and after an interruption."""

import csv
import functools
import os
import shutil
import signal
import types

import keras
import numpy as np
import pytest
import tiny

import kseg
from kseg import layers, metrics
from kseg.commands import flagfiles
from kseg.export.proof import ExportError
from kseg.models import MODELS
from kseg.models.pretrained import weights
from kseg.runs import checkpoints
from kseg.runs.workdir import RunFolder
from kseg.training import validation as finishing

CONSTANT = {**tiny.SETTINGS, "lr_schedule": "constant"}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny.write_records(tmp_path_factory.mktemp("going_on"))


@pytest.fixture(scope="module")
def whole(records, tmp_path_factory):
    """The folder of a run of three epochs (nine steps) at a constant rate."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    kseg.train(tiny.build_tiny, records, workdir, **CONSTANT)
    return workdir


def arrays(path):
    return kseg.load_model(path).get_weights()


def same_weights(a, b):
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


def rows(workdir):
    with open(workdir / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def flags(workdir):
    return (workdir / "flags.txt").read_text().splitlines()


def without(settings, *names):
    return {name: value for name, value in settings.items() if name not in names}


def test_a_finished_run_that_is_made_longer_is_the_longer_run(whole, records, tmp_path, capsys, root, monkeypatch):
    """At a constant rate to the bit, also where its first end cut an epoch short, in steps or in epochs."""
    workdir = tmp_path / "run"
    steps = without(CONSTANT, "epochs")
    kseg.train(tiny.build_tiny, records, workdir, train_steps=4, **steps)
    assert [row["step"] for row in rows(workdir)] == ["3", "4"]
    capsys.readouterr()
    kseg.train(tiny.build_tiny, records, workdir, **CONSTANT)
    said = capsys.readouterr().out
    assert "Going on from step 4 of 9 (until now 4), lr_schedule=constant over 9 steps" in said
    assert "from step 5 on, where the learning rate is 0.01.\n" in said and "counts from here" not in said
    for name in ("best.keras", "last.keras"):
        assert same_weights(workdir / name, whole / name)
    assert (workdir / "scores.json").read_bytes() == (whole / "scores.json").read_bytes()
    history = rows(workdir)  # the early end keeps its row: it was scored, and could have been the best
    assert [(row["epoch"], row["step"]) for row in history] == [("1", "3"), ("2", "4"), ("2", "6"), ("3", "9")]
    assert [row for row in history if row["step"] != "4"] == rows(whole)
    lines = flags(workdir)
    assert lines[lines.index("--epochs=3") - 1] == "# until step 4: --train_steps=4"
    assert RunFolder(workdir).stored() == RunFolder(whole).stored()
    longer, other = (flagfiles.expand_flagfiles([f"--flagfile={folder}/flags.txt"]) for folder in (workdir, whole))
    assert longer == other and "--epochs=3" in longer


def test_the_schedule_is_that_of_the_new_length(records, tmp_path, capsys):
    """poly: .01 (1 - step/total)^.9. The rate in the history is the next step's."""
    workdir = tmp_path / "run"
    two = {**tiny.SETTINGS, "epochs": 2}
    kseg.train(tiny.build_tiny, records, workdir, **two)
    best = float(rows(workdir)[0]["val_mean_iou"]), float(rows(workdir)[1]["val_mean_iou"])
    capsys.readouterr()
    kseg.train(tiny.build_tiny, records, workdir, **tiny.SETTINGS)
    rate = 0.01 * (1 - 6 / 9) ** 0.9
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Going on"))
    assert "lr_schedule=poly over 9 steps from step 7 on" in line and f"{rate:.4g}." in line
    history = rows(workdir)
    assert [row["step"] for row in history] == ["3", "6", "9"]
    rates = [float(row["learning_rate"]) for row in history]
    assert rates == pytest.approx([0.01 * (1 - 3 / 6) ** 0.9, 0, 0], abs=1e-9)
    assert (float(history[0]["val_mean_iou"]), float(history[1]["val_mean_iou"])) == best
    kept = metrics.Scores.from_json(workdir / "scores.json").mean_iou
    assert kept == pytest.approx(max(*best, float(history[2]["val_mean_iou"])), abs=1e-12)


class Die(keras.callbacks.Callback):
    """KeyboardInterrupt before a step, as SIGKILL would: nothing is saved."""

    def __init__(self, before_step):
        super().__init__()
        self.before_step = before_step

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) + 1 == self.before_step:
            raise KeyboardInterrupt


def test_a_longer_run_that_is_killed_at_once_and_made_longer_again(whole, records, tmp_path, capsys):
    workdir = tmp_path / "run"
    end = {**CONSTANT, "epochs": 4}
    shutil.copytree(whole, workdir)
    with pytest.raises(KeyboardInterrupt):
        kseg.train(tiny.build_tiny, records, workdir, callbacks=[Die(10)], **{**CONSTANT, "epochs": 5})
    assert not RunFolder(workdir).finished and "# until step 9: --epochs=3" in flags(workdir)
    with pytest.raises(kseg.InputError, match="it has 15 steps, got 12"):
        kseg.train(tiny.build_tiny, records, workdir, **end)
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        kseg.train(tiny.build_tiny, records, workdir, callbacks=[Die(12)], **{**CONSTANT, "epochs": 6})
    assert "Going on from step 9 of 18 (until now 9)" in capsys.readouterr().out
    # Nothing was trained with five epochs. The checkpoint is of step 10.
    assert [line for line in flags(workdir) if "until" in line] == ["# until step 9: --epochs=3"]
    free = {"checkpoint_every_steps": 1, "validate_every_epochs": 2}
    _, history = kseg.train(tiny.build_tiny, records, workdir, **{**CONSTANT, **free, "epochs": 7})
    assert "Going on from step 10 of 21 (until now 18)" in capsys.readouterr().out
    assert [row["step"] for row in history] == [3, 6, 9, 12, 15, 18, 21]
    assert ["val_mean_iou" in row for row in history] == [True, True, True, True, False, True, True]
    found = [line for line in flags(workdir) if "until" in line]  # validate_every_epochs was 1, epochs 6
    assert found == ["# until step 9: --epochs=3", "# until step 10: --epochs=6 --validate_every_epochs=1"]
    names = [path.name for path in checkpoints.list_checkpoints(workdir / "checkpoints")]
    assert names == ["step-00000020.npz", "step-00000021.npz"]
    kseg.train(tiny.build_tiny, records, workdir, **{**CONSTANT, "epochs": 7, "validate_every_epochs": 3})
    assert "is finished" in capsys.readouterr().out


def test_a_run_cannot_become_shorter(whole, records):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    with pytest.raises(kseg.InputError) as error:
        kseg.train(tiny.build_tiny, records, whole, **{**CONSTANT, "epochs": 2})
    assert str(error.value).splitlines() == [
        f"{whole} holds a run with other settings:",
        "  epochs: stored '3', now '2'",
        "A run can be extended but not shortened: it has 9 steps, got 6.",
        f"Use another workdir. To start from this run's weights, add init_from={whole}.",
    ]
    for values in ({"epochs": 4, "batch_size": 1}, {"epochs": 4, "keep": "last"}, {"epochs": 4, "patience": 2}):
        name = list(values)[1]
        with pytest.raises(kseg.InputError, match=f"{name}: stored .*\n.*init_from="):
            kseg.train(tiny.build_tiny, records, whole, **{**CONSTANT, **values})
    with pytest.raises(kseg.InputError, match="train_steps: stored '0', now '8'"):
        kseg.train(tiny.build_tiny, records, whole, train_steps=8, **without(CONSTANT, "epochs"))
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}


def test_the_same_length_in_the_other_form_is_the_same_run(whole, records, capsys):
    kseg.train(tiny.build_tiny, records, whole, train_steps=9, **without(CONSTANT, "epochs"))
    assert "is finished" in capsys.readouterr().out


def test_a_finished_run_without_checkpoints_is_not_begun_anew(whole, records, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(kseg.InputError, match="cannot continue: its checkpoints are gone. .* init_from="):
        kseg.train(tiny.build_tiny, records, workdir, **{**CONSTANT, "epochs": 4})
    assert same_weights(workdir / "best.keras", whole / "best.keras") and RunFolder(workdir).finished


class OneClass(keras.callbacks.Callback):
    """Makes all pixels one class's after every step: no epoch is better than the first."""

    def on_train_batch_end(self, batch, logs=None):
        layer = self.model.get_layer("logits")
        layer.kernel.assign(0 * layer.kernel)
        layer.bias.assign([1.0, 0.0, 0.0])


def test_patience_counts_anew_in_a_run_that_it_had_ended(records, tmp_path, capsys):
    """The first epoch is the best: patience 2 ends the run after the third, and the longer one two epochs later."""
    settings = {**CONSTANT, "epochs": 6, "patience": 2}
    _, history = kseg.train(tiny.build_tiny, records, tmp_path / "run", callbacks=[OneClass()], **settings)
    assert len(history) == 3
    longer = {**settings, "epochs": 7}
    with pytest.raises(KeyboardInterrupt):  # in the fifth epoch: what is counted from is in the checkpoint
        kseg.train(tiny.build_tiny, records, tmp_path / "run", callbacks=[OneClass(), Die(14)], **longer)
    assert "the wait for a better epoch counts from here.\n" in capsys.readouterr().out
    _, history = kseg.train(tiny.build_tiny, records, tmp_path / "run", callbacks=[OneClass()], **longer)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert "# until step 9: --epochs=6" in flags(tmp_path / "run")


def test_going_on_from_an_earlier_checkpoint_moves_the_line(whole, records, tmp_path):
    """The newest checkpoint of the first length was torn and deleted: its steps are done again, at the new one."""
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    for step in (9, 8):
        with pytest.raises(KeyboardInterrupt):
            kseg.train(tiny.build_tiny, records, workdir, callbacks=[Die(step + 1)], **{**CONSTANT, "epochs": 4})
        assert [line for line in flags(workdir) if "until" in line] == [f"# until step {step}: --epochs=3"]
        checkpoints.list_checkpoints(workdir / "checkpoints")[-1].unlink()  # that of step 9; that of step 8 is left


# Resuming without what the run began from.


def small(input_shape, num_classes, *, encoder_weights=None, name="small"):
    """A model of two layers, of which an encoder's file has the first."""
    image = keras.Input(input_shape)
    x = layers.Preprocess((124, 116, 104), (60, 60, 60), name="preprocess")(image)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(x)
    model = keras.Model(image, keras.layers.Conv2D(num_classes, 1, name="scores")(x), name=name)
    if encoder_weights:
        weights.load_encoder_weights(model, "vgg16", encoder_weights)
    return model


@pytest.mark.parametrize("source", ["init_from", "encoder_weights"])
def test_a_workdir_resumes_when_what_it_began_from_is_gone(source, records, tmp_path, monkeypatch):
    """Weights, and how images are normalised, to the bit."""
    monkeypatch.setitem(MODELS, "small", small)
    monkeypatch.setitem(weights.ARCHITECTURES["vgg16"], "layers", {"first": ("conv", "first", None)})
    settings, other = {**CONSTANT, "epochs": 2, "batch_size": 3}, small((32, 64, 3), 3)  # four steps
    if source == "init_from":
        other.get_layer("preprocess").mean, other.get_layer("preprocess").scale = (1.0, 2.5, 3.1), (50.0, 60.0, 70.0)
        file = tmp_path / "source.keras"
        other.save(file)
        options = {}
        settings["init_from"] = str(file)
        mean = (1.0, 2.5, 3.1)
        scale = (50.0, 60.0, 70.0)
    else:
        file, mean, scale = (
            tmp_path / "vgg.weights.h5",
            (123.68, 116.779, 103.939),
            (1.0, 1.0, 1.0),
        )  # Caffe's, as Keras'
        other.save_weights(file)
        options = {"encoder_weights": str(file)}
    train = functools.partial(kseg.train, "small", records, model_options=options, **settings)
    train(tmp_path / "whole")
    for name, step in (("early", 1), ("run", 4)):  # no checkpoint, and that of step 2
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / name, callbacks=[Die(step)])
    file.unlink()
    train(tmp_path / "run")
    for name in ("best.keras", "last.keras"):
        assert same_weights(tmp_path / "run" / name, tmp_path / "whole" / name)
        layer = kseg.load_model(tmp_path / "run" / name).get_layer("preprocess")
        assert (layer.mean, layer.scale) == (mean, scale)
    for name in ("history.csv", "scores.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(kseg.InputError, match=f"No .* at {file}"):
        train(tmp_path / "early")


def test_a_checkpoint_that_does_not_tell_the_normalisation_is_refused(records, tmp_path, monkeypatch):
    """One of an earlier kseg, of a run that began from another: the builder's own normalisation would be wrong."""
    monkeypatch.setitem(MODELS, "small", small)
    small((32, 64, 3), 3).save(tmp_path / "source.keras")
    settings = {**CONSTANT, "init_from": str(tmp_path / "source.keras")}
    save = checkpoints.save_checkpoint

    def save_as_earlier(folder, state, variables):
        early = types.SimpleNamespace(**without(vars(state), "normalization", "cut", "total_steps"))
        save(folder, early, variables)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "save_checkpoint", save_as_earlier)
        kseg.train("small", records, tmp_path / "run", callbacks=[Die(3)], **settings)
    with pytest.raises(kseg.InputError, match="step-00000002.npz is from an earlier kseg .* Use another workdir"):
        kseg.train("small", records, tmp_path / "run", **settings)


# An interruption reaches the caller.


def interrupting(function, number):
    """The function, with a signal while it runs."""

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), number)
        return function(*arguments, **options)

    return interrupted


@pytest.mark.parametrize(
    ("owner", "name", "finished"),
    [
        (finishing, "score_batches", False),
        (finishing, "draw_predictions", False),
        (finishing, "draw_confusion_matrix", False),
        (finishing, "export_saved_model", True),
        (metrics.Scores, "to_json", True),
        (RunFolder, "print_contents", True),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_interruption_of_the_end_reaches_the_caller(owner, name, finished, whole, records, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "saved_model")
    (workdir / "scores.json").unlink()
    number = signal.SIGTERM if name in ("to_json", "score_batches") else signal.SIGINT
    kind = SystemExit if number == signal.SIGTERM else KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(kind) as stop:
        patch.setattr(owner, name, interrupting(getattr(owner, name), number))
        kseg.train(tiny.build_tiny, records, workdir, **CONSTANT)
    assert number == signal.SIGINT or stop.value.code == 143
    assert RunFolder(workdir).finished is finished and (workdir / "saved_model").exists() is finished
    assert not list(workdir.glob(".*"))
    kseg.train(tiny.build_tiny, records, workdir, **CONSTANT)
    assert (workdir / "scores.json").read_bytes() == (whole / "scores.json").read_bytes()


def test_an_epoch_of_which_no_step_was_left_tells_no_pace(records, tmp_path, monkeypatch, capsys):
    """Stopped while epoch 1 was scored: its steps are done, and what goes on has only the scoring to do."""
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(finishing, "score_batches", interrupting(finishing.score_batches, signal.SIGTERM))
        kseg.train(tiny.build_tiny, records, workdir, **CONSTANT)
    assert "Stopped at step 3 of 9, saved." in capsys.readouterr().out
    kseg.train(tiny.build_tiny, records, workdir, **CONSTANT)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines if "images/s" in line] == ["epoch 2/3", "epoch 3/3"]
    assert [row["step"] for row in rows(workdir)] == ["3", "6", "9"]


def test_a_run_whose_saved_model_differs_from_keras_says_so_and_is_finished(
    whole, records, tmp_path, monkeypatch, capsys
):
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "saved_model")
    (workdir / "scores.json").unlink()

    def differ(*arguments, **options):
        raise ExportError("The SavedModel file differs.")

    monkeypatch.setattr(finishing, "export_saved_model", differ)
    kseg.train(tiny.build_tiny, records, workdir, **CONSTANT)
    assert "No SavedModel: The SavedModel file differs." in capsys.readouterr().out
    assert RunFolder(workdir).finished and not (workdir / "saved_model").exists()


def test_an_interruption_beside_an_error_is_not_lost(whole, records, tmp_path, monkeypatch, capfd):
    """Whoever goes on to the next run after an error would not stop at Ctrl-C."""
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    (workdir / "scores.json").unlink()

    def fail(*arguments, **options):
        raise kseg.InputError("No room for the export.")

    monkeypatch.setattr(finishing, "export_saved_model", interrupting(fail, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        kseg.train(tiny.build_tiny, records, workdir, **CONSTANT)
    assert "\nNo room for the export.\n" in capfd.readouterr().err
    assert not RunFolder(workdir).finished
