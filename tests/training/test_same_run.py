"""What a run is: a function of the same name, another backend and a try that failed are not it, or are told."""

import json
import shutil

import keras
import numpy as np
import pytest
import tiny

import kseg
from kseg.runs.architecture import difference
from kseg.runs.workdir import RunFolder

SETTINGS = {**tiny.SETTINGS, "epochs": 0, "train_steps": 2, "checkpoint_every_steps": 1}
LONGER = {**SETTINGS, "train_steps": 4}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny.write_records(tmp_path_factory.mktemp("same_run"))


def made(activation="relu", filters=4, weights=1.0):
    layers = [
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(filters, 1, activation=activation, name="hidden"),
        keras.layers.Conv2D(3, 1, kernel_initializer=keras.initializers.Constant(weights), name="scores"),
    ]
    return keras.Sequential([keras.Input((32, 64, 3)), *layers])


@pytest.fixture(scope="module")
def whole(records, tmp_path_factory):
    """The folder of a finished run of a lambda."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    kseg.train(lambda: made(), records, workdir, **SETTINGS)
    return workdir


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


# tanh has the shapes of relu: the checkpoint alone would not tell.
@pytest.mark.parametrize("settings", [SETTINGS, LONGER], ids=["finished", "going on"])
def test_another_function_of_the_same_name_is_another_run(settings, whole, records):
    before = contents(whole)
    with pytest.raises(kseg.InputError) as error:
        kseg.train(lambda: made("tanh"), records, whole, **settings)
    assert str(error.value) == (
        f"{whole} holds a run of a different model than the function builds now: activation of layer 'hidden' "
        f'(Conv2D) was "relu", is "tanh". Use another workdir. To start from this run\'s '
        f"weights, add init_from={whole}."
    )
    with pytest.raises(kseg.InputError, match=r"filters of layer 'hidden' \(Conv2D\) was 4, is 6"):
        kseg.train(lambda: made(filters=6), records, whole, **settings)
    assert contents(whole) == before


def test_the_same_layers_from_a_function_of_another_place_are_the_same_run(whole, records, capsys):
    def build():
        return made(weights=2.0)

    build.__name__ = "<lambda>"
    model, _ = kseg.train(build, records, whole, **SETTINGS)
    said = capsys.readouterr().out
    assert f"The function of the run was {__name__}.whole.<locals>.<lambda>, is {__name__}.test_the_same" in said
    assert "is finished" in said
    stored = kseg.load_model(whole)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), stored.get_weights(), strict=True))


def test_a_function_named_like_a_model_of_ksegs_is_not_that_model(records, tmp_path):
    def unet():
        return made()

    kseg.train(unet, records, tmp_path / "run", **SETTINGS)
    with pytest.raises(kseg.InputError, match="a function that builds the model: stored '.*unet', now not set"):
        kseg.train("unet", records, tmp_path / "run", **SETTINGS)


def test_a_run_of_before_says_nothing_of_its_layers_or_backend(whole, records, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    (workdir / "model.json").unlink()
    lines = (workdir / "flags.txt").read_text().splitlines()
    assert {"# backend=tensorflow", f"# builder={__name__}.whole.<locals>.<lambda>"} <= set(lines)
    assert lines[0].endswith("<lambda> builds the model: kseg.train(<lambda>, ...) repeats this run.")
    kept = [line for line in lines if not line.startswith(("# backend", "# builder"))]
    # It took settings that have no effect: momentum with adam.
    kept[kept.index("--momentum=0.9")] = "--momentum=0.8"
    (workdir / "flags.txt").write_text("\n".join([*kept, ""]))
    kseg.train(lambda: made(), records, workdir, **LONGER)
    assert "Going on from step 2 of 4" in capsys.readouterr().out
    rows = [json.loads((folder / "model.json").read_text()) for folder in (workdir, whole)]
    assert rows[0] and difference(*rows) is None


def test_a_run_of_another_backend_is_refused(whole, records, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    flags = (workdir / "flags.txt").read_text()
    (workdir / "flags.txt").write_text(flags.replace("# backend=tensorflow", "# backend=jax"))
    before = contents(workdir)
    with pytest.raises(kseg.InputError) as error:
        kseg.train(lambda: made(), records, workdir, **LONGER)
    assert str(error.value) == (
        f"{workdir} was trained with KERAS_BACKEND=jax, now it is tensorflow. Different backends give "
        "different bits, so it would be another run. Set KERAS_BACKEND=jax to continue. Use another workdir. To "
        f"start from this run's weights, add init_from={workdir}."
    )
    assert contents(workdir) == before


class Fail(keras.callbacks.Callback):
    """Stops a run before its first step, or after so many."""

    def __init__(self, step=0):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.step:
            raise RuntimeError("the first try")


def test_a_try_without_a_checkpoint_is_begun_again_with_new_settings(records, tmp_path, capsys):
    workdir = tmp_path / "run"
    with pytest.raises(RuntimeError, match="the first try"):
        kseg.train(lambda: made(filters=6), records, workdir, callbacks=[Fail()], onednn="off", **SETTINGS)
    assert {path.name for path in workdir.iterdir()} == {"flags.txt", "logs", "model.json"}
    assert RunFolder(workdir).never_saved
    changed = {**SETTINGS, "learning_rate": 0.02}
    _, history = kseg.train(lambda: made(), records, workdir, **changed)
    assert f"The run in {workdir} made no checkpoint: it begins again" in capsys.readouterr().out
    assert [row["step"] for row in history] == [2]
    stored = RunFolder(workdir).stored()
    assert stored["learning_rate"] == "0.02" and json.loads((workdir / "model.json").read_text())
    kseg.train(lambda: made(), records, tmp_path / "straight", **changed)
    straight, again = (kseg.load_model(folder).get_weights() for folder in (tmp_path / "straight", workdir))
    assert all(np.array_equal(a, b) for a, b in zip(straight, again, strict=True))


def test_init_from_is_offered_only_where_weights_are(records, tmp_path):
    """A checkpoint of the first step is no file that init_from reads: best.keras comes with the first epoch."""
    workdir = tmp_path / "run"
    with pytest.raises(RuntimeError):
        kseg.train(lambda: made(), records, workdir, callbacks=[Fail(1)], **SETTINGS)
    assert not RunFolder(workdir).never_saved
    with pytest.raises(kseg.InputError) as error:
        kseg.train(lambda: made(), records, workdir, **{**SETTINGS, "learning_rate": 0.02})
    assert str(error.value).endswith("\nUse another workdir.")


def test_a_finished_run_whose_weights_were_deleted_is_not_begun_again(whole, records, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    for path in (*workdir.glob("*.keras"), *workdir.glob("checkpoints/*")):
        path.unlink()
    with pytest.raises(kseg.InputError, match="  learning_rate: stored '0.01', now '0.02'\nUse another workdir.$"):
        kseg.train(lambda: made(), records, workdir, **{**SETTINGS, "learning_rate": 0.02})
    assert RunFolder(workdir).finished
