"""A run with all that is not plain training: resumed to the same bits, its head left behind, its end well chosen."""

import keras
import numpy as np
import pytest
import replica_recipes
import tiny

import kseg
from kseg.models.pretrained import weights
from kseg.runs.workdir import RunFolder

SETTINGS = {
    **tiny.SETTINGS,
    "epochs": 4,
    "lr_schedule": "steps",
    "lr_drop_epochs": "1.5",
    "clip_norm": 1.0,
    "weight_decay": 0.01,
    "freeze_encoder_epochs": 1,
    "encoder_lr_multiplier": 0.5,
    "auxiliary_weight": 0.4,
    "best_by": "sensitivity",
    "patience": 1,
}


def build():
    """The small model at the size of `tiny`'s records."""
    return replica_recipes.build((32, 64))


class Watch(keras.callbacks.Callback):
    """Notes when an encoder's kernel changes; from the second epoch (step 4) on all pixels are made one class's."""

    def __init__(self, die_before_step=None):
        super().__init__()
        self.die_before_step = die_before_step
        self.kernels = {}
        self.ends = []

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) + 1 == self.die_before_step:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations)
        scores = self.model.get_layer("scores")
        self.kernels[step] = self.model.get_layer("first").kernel.numpy()
        if step >= 4:
            scores.kernel.assign(0 * scores.kernel)
            scores.bias.assign([1.0, 0.0, 0.0])

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self.model.get_weights())

    def on_train_end(self, logs=None):
        raise KeyboardInterrupt  # what follows, scoring and exporting the kept file, is as in any run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run and one that was stopped in its second epoch and goes on: (folder, history, watch) of each."""
    folder = tmp_path_factory.mktemp("recipes")
    records = tiny.write_records(folder)
    found = {}
    keras.utils.set_random_seed(7)
    source = replica_recipes.build((32, 64), 5)
    source.save(folder / "source.keras")
    common = {**SETTINGS, "init_from": str(folder / "source.keras")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(weights.ARCHITECTURES["vgg16"], "layers", {"first": ("conv", "first", None)})
        for name, watch in (("cut", Watch(die_before_step=6)), ("whole", Watch()), ("cut", Watch())):
            with pytest.raises(KeyboardInterrupt):
                kseg.train(build, records, folder / name, callbacks=[watch], **common)
            found[name] = folder / name, watch
    found = {name: (path, RunFolder(path).read_history(), watch) for name, (path, watch) in found.items()}
    return source, found


def test_it_ends_with_the_same_bits_in_the_same_epoch(runs):
    (whole, history, _), (cut, resumed, _) = (runs[1][name] for name in ("whole", "cut"))
    assert resumed == history
    for name in ("last.keras", "best.keras"):
        a, b = (kseg.load_model(folder / name).get_weights() for folder in (whole, cut))
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_it_stops_when_the_score_that_was_asked_for_is_no_better(runs):
    folder, history, watch = runs[1]["whole"]
    scores = [row["val_sensitivity"] for row in history]
    assert all(score == pytest.approx(1 / 3) for score in scores[1:])  # one class right, two wrong
    assert len(scores) == (2 if scores[0] >= scores[1] else 3) < SETTINGS["epochs"]
    kept = kseg.load_model(folder).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(kept, watch.ends[int(np.argmax(scores))], strict=True))
    with pytest.raises(ValueError, match="  best_by: stored 'sensitivity', now 'f1'"):
        kseg.train(build, folder.parent / "records", folder, **{**SETTINGS, "best_by": "f1"})


def test_the_encoder_begins_from_the_other_run_and_is_frozen_for_an_epoch(runs):
    source, found = runs
    _, _, watch = found["whole"]
    start = source.get_layer("first").kernel.numpy()
    assert all(np.array_equal(watch.kernels[step], start) for step in (1, 2, 3))
    assert not np.array_equal(watch.kernels[4], start)


def test_no_file_holds_the_auxiliary_head(runs):
    folder, _, _ = runs[1]["whole"]
    model = kseg.load_model(folder)
    assert model.name == "small" and len(model.outputs) == 1
    assert not any("auxiliary" in layer.name for layer in model.layers)
    with np.load(max((folder / "checkpoints").glob("*.npz"))) as arrays:  # the checkpoint has it
        shapes = [arrays[name].shape for name in arrays.files if name.startswith("model/")]
    assert len(shapes) == len(model.variables) + 1 + 4 + 1 + 2  # convolution, batch norm, dropout's seed, scores
