"""The moving average of weights and statistics: against NumPy, in each kind of step, and in the files of a run."""

import averages
import keras
import numpy as np
import pytest
import tiny

import kseg
from kseg import layers
from kseg.io.errors import InputError
from kseg.metrics import Scores
from kseg.runs import checkpoints
from kseg.training.averaging import MovingAverage


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny.write_records(tmp_path_factory.mktemp("averaging"))


def test_the_average_by_hand():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    (kernel,) = model.variables
    optimizer = keras.optimizers.SGD()
    kernel.assign([[8.0]])
    average = MovingAverage(model, optimizer, momentum=0.2)
    for value in (4.0, 2.0, 1.0):
        kernel.assign([[value]])
        optimizer.iterations.assign_add(1)
        average.update()
    average.update()  # no step since: nothing new
    with average.in_place():
        # The momentum is min(.2, 1/10), min(.2, 2/11), min(.2, 3/12).
        first = 8 / 10 + 4 * 9 / 10
        second = first * 2 / 11 + 2 * 9 / 11
        assert float(kernel[0, 0]) == pytest.approx(second * 0.2 + 1 * 0.8, rel=1e-6)
    assert float(kernel[0, 0]) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.999},
        {"momentum": 0.15},
        {"momentum": 0.999, "passes": 2},
        {"momentum": 0.999, "remat": True, "frozen_steps": 3},
        {"momentum": 0.999, "mixed_precision": "float16", "skipped": (1, 3)},
        {"momentum": 0.999, "mixed_precision": "float16", "passes": 2, "skipped": (2,)},
    ],
    ids=lambda options: "-".join(f"{name}={value}" for name, value in options.items()),
)
def test_the_average_of_each_kind_of_step(options):
    trainer, got, expected, raw = averages.run(**options)
    assert len(got) == 8 == len(trainer.model.trainable_variables) + 2  # moving mean and variance too, no seed
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    same = [np.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(got, raw, strict=True)]
    assert same == [False, True, *[False] * 6]  # the bias before batch norm has no gradient
    assert len(trainer.average.variables) == 9  # with the number of steps


def test_what_does_not_change_stays_to_the_bit():
    trainer, got, _, raw = averages.run(0.999, frozen_steps=9)
    frozen = [any(v is w for w in trainer.model.get_layer("first").weights) for v in trainer.model.variables]
    same = [np.array_equal(a, b) for a, b in zip(got, raw, strict=True)]
    assert same == [f for f, v in zip(frozen, trainer.model.variables, strict=True) if v.dtype == "float32"]
    assert sum(same) == 2


def build_quick():
    """A model that learns `tiny`'s rule, an image's brightness, within a few steps."""
    image = keras.Input((32, 64, 3))
    x = layers.Preprocess((124, 116, 104), (60, 60, 60))(image)
    x = keras.layers.ReLU()(layers.BatchNormalization()(keras.layers.Conv2D(16, 1)(x)))
    return keras.Model(image, keras.layers.Conv2D(3, 1)(x))


def test_a_long_average_of_a_short_run_is_not_its_first_weights(records, tmp_path):
    """24 steps at .999: an average that begins at full length keeps .999^24 = 98 % of the first weights (IoU .18)."""
    settings = {**tiny.SETTINGS, "epochs": 0, "train_steps": 24, "learning_rate": 0.05, "batch_size": 4, "keep": "last"}
    settings |= dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    settings |= {"scale_min": 1.0, "scale_max": 1.0, "validate_every_epochs": 24, "checkpoint_every_steps": 24}
    scores = {}
    for momentum in (0.0, 0.999):
        folder = tmp_path / str(momentum)
        model, history = kseg.train(build_quick, records, folder, ema_momentum=momentum, **settings)
        scores[momentum] = kseg.evaluate(model, records).mean_iou
        # What was scored in training is what the files hold, and what was exported.
        assert history[-1]["val_mean_iou"] == scores[momentum]
        assert Scores.from_json(folder / "scores.json").mean_iou == scores[momentum]
        assert kseg.evaluate(folder / "saved_model", records).mean_iou == pytest.approx(scores[momentum], abs=1e-3)
    assert scores[0.0] > 0.7 and scores[0.999] > scores[0.0] - 0.05


def test_a_stopped_run_goes_on_with_the_same_average(records, tmp_path):
    settings = {**tiny.SETTINGS, "ema_momentum": 0.999, "mixed_precision": "float16", "accumulate_steps": 2}

    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kseg.train(tiny.build_tiny, records, tmp_path / "cut", callbacks=[Stop()], **settings)
    states = []
    for name in ("cut", "whole"):
        kseg.train(tiny.build_tiny, records, tmp_path / name, **settings)
        with np.load(checkpoints.list_checkpoints(tmp_path / name / "checkpoints")[-1]) as stored:
            states.append({key: stored[key] for key in stored.files if key != "header"})
    assert sum(key.startswith("average/") for key in states[0]) == 9
    assert states[0].keys() == states[1].keys()
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])


def test_a_checkpoint_of_before_is_refused(tmp_path):
    """Earlier ones held an average of the weights alone, among the optimizer's variables."""
    variables = tiny.build_tiny().variables
    before = averages.values(variables)
    path = checkpoints.save_checkpoint(
        tmp_path, checkpoints.TrainState(3), {"model": variables, "optimizer": variables[:4]}
    )
    wanted = {"model": variables, "optimizer": variables[:1], "average": variables}
    with pytest.raises(InputError, match="holds no average variables: another version of kseg .* init_from starts it"):
        checkpoints.restore_checkpoint(path, wanted)
    assert all(np.array_equal(a, b) for a, b in zip(averages.values(variables), before, strict=True))
