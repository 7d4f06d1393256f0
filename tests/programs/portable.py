"""What must work where there is no TensorFlow.

KERAS_BACKEND=jax python tests/programs/portable.py SOURCE RECORDS OUTPUT
"""

import json
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
sys.modules["tensorflow"] = None  # importing it raises ImportError from here on

import contextlib

import averages
import decoders
import keras
import numpy as np
import tiny
from scenes import decoded

import kseg
from kseg.data.augmentation import apply_numpy, plan
from kseg.data.datasets import image_folders
from kseg.settings import Augmentation
from kseg.training.trainers import make_trainer


class PlanBatches(keras.utils.PyDataset):
    """Batches of an epoch plan over a reader: the way to train without record folders and without TensorFlow."""

    def __init__(self, split, table, batch_size, size):
        super().__init__()
        self.split = split
        self.table = table
        self.batch_size = batch_size
        self.size = size
        self.epoch = 0
        self.on_epoch_begin()

    def on_epoch_begin(self):
        ranges = Augmentation(scale_min=0.75, scale_max=1.5, flip=True)
        self.plan = plan.epoch_plan(len(self.split), self.batch_size, 0, self.epoch, ranges)
        self.epoch += 1

    def __len__(self):
        return len(self.plan)

    def __getitem__(self, step):
        pairs = []
        for row in self.plan[step]:
            _, image, label = self.split[int(row["record"])]
            pairs.append(apply_numpy.apply_row(image, self.table[label], row, *self.size))
        return tuple(np.stack(part) for part in zip(*pairs, strict=True))


def fit_on_a_reader(source):
    """compile and fit on batches from a reader, then score on its validation split."""
    reader = image_folders.read(source)
    labels = reader.info.label_set()
    keras.utils.set_random_seed(0)
    model = tiny.build_without_dropout()  # XLA takes its time over a whole SegNet-ASPP: test_segnet.py, slow
    model.compile(
        keras.optimizers.Adam(0.01), loss=kseg.losses.CrossEntropy(), metrics=[kseg.metrics.SegmentationScores(3)]
    )
    batches = PlanBatches(decoded(reader, "train"), labels.table, 2, (32, 64))
    history = model.fit(batches, epochs=8, verbose=0).history
    pairs = [(image, labels.table[label]) for _, image, label in decoded(reader, "val")]
    scores = kseg.evaluate(model, pairs)
    return {"losses": history["loss"], "train_iou": history["mean_iou"], "images": scores.images}


def train_on_records(records, output):
    """kseg.train over both devices, killed half-way by an exception, then finished; and the same in one go."""

    class Stop(keras.callbacks.Callback):
        steps = 0

        def on_train_batch_begin(self, batch, logs=None):
            self.steps += 1
            if self.steps == 9:  # in the middle of the third epoch, one step after a checkpoint
                raise KeyboardInterrupt

    settings = {**tiny.SETTINGS, "strategy": "mirrored", "ema_momentum": 0.5}
    with contextlib.suppress(KeyboardInterrupt):
        kseg.train(tiny.build_tiny, records, output / "cut", callbacks=[Stop()], **settings)
    ended = {}
    for name in ("cut", "whole"):
        model, history = kseg.train(tiny.build_tiny, records, output / name, **settings)
        ended[name] = [np.asarray(variable.value) for variable in model.variables]
    same = all(np.array_equal(a, b) for a, b in zip(*ended.values(), strict=True))
    scores = kseg.evaluate(output / "whole", records)
    return {"same": same, "steps": [row["step"] for row in history], "mean_iou": scores.mean_iou}


def average():
    """How far the moving average of a few steps is from the one by hand, and from the raw weights."""
    far = {}
    for name, options in {
        "plain": {},
        "both devices": {"strategy": "mirrored"},
        "float16": {"mixed_precision": "float16", "skipped": (1, 3)},
    }.items():
        _, got, expected, raw = averages.run(0.999, **options)
        far[name] = [
            max(float(np.abs(a - b).max()) for a, b in zip(got, other, strict=True)) for other in (expected, raw)
        ]
    return {"average": far}


def train_on_crops(records, output):
    """kseg.train of a model of free size on crops, with smoothed labels and more outputs than classes."""
    settings = {**tiny.SETTINGS, "epochs": 0, "train_steps": 1, "strategy": "one", "height": 42, "width": 70}
    settings |= {"crop_height": 16, "crop_width": 20, "num_outputs": 5, "label_resize": "smooth"}
    settings |= {"keep": "lowest_loss", "class_weights": "median_frequency", "loss": "cross_entropy+lovasz_softmax"}
    options = {"base_filters": 2, "depth": 2}
    model, _ = kseg.train("unet", records, output, model_options=options, **settings)
    return {"crops": [model.input_shape, model.output_shape, model.get_layer("preprocess").size]}


def build_decoders(output):
    """Writes the logits of decoders that take any encoder, and trains one with group norm."""
    np.savez(output, **{name: decoders.logits(name) for name in decoders.PORTABLE})
    keras.utils.set_random_seed(0)
    model = decoders.build("fpn", "vgg16", (32, 64))
    model.compile(keras.optimizers.Adam(0.01), loss=kseg.losses.CrossEntropy())
    images = decoders.image((4, 32, 64, 3))
    labels = np.digitize(images.mean(-1), [90, 160])
    return {"fpn": [float(model.train_on_batch(images, labels)) for _ in range(8)]}


def main(source, records, output):
    """Print what was found as JSON on the last line."""
    import jax

    found = {"devices": jax.device_count(), "backend": keras.backend.backend()}
    found |= fit_on_a_reader(source) | train_on_records(records, pathlib.Path(output))
    found |= train_on_crops(records, pathlib.Path(output, "crops")) | average()
    found |= build_decoders(pathlib.Path(output, "decoders.npz"))
    found["files"] = sorted(path.name for path in pathlib.Path(output, "whole").iterdir())
    try:
        kseg.export_saved_model(pathlib.Path(output, "whole"), pathlib.Path(output, "exported"))
    except ValueError as error:
        found["export"] = str(error)
    exported = pathlib.Path(output, "from_tensorflow")
    exported.mkdir()
    (exported / "saved_model.pb").touch()
    for what in ("saved_model_from_outside", "saved_model"):
        try:
            kseg.load_model(exported)
        except ValueError as error:
            found[what] = str(error)
        (exported / "classes.json").touch()  # with it the folder is one that kseg exported
    os.environ["TF_CONFIG"] = '{"cluster": {"worker": ["a:1", "b:1", "c:1"]}}'
    try:
        make_trainer("auto", 6)
    except ValueError as error:
        found["group"] = str(error)
    found["refused"] = []
    del os.environ["TF_CONFIG"]
    for strategy, passes in (("multiworker", 1), ("one", 2)):
        try:
            make_trainer(strategy, 6, accumulate_steps=passes)
        except ValueError as error:
            found["refused"].append(str(error))
    try:
        make_trainer("one", 6).rematerialize((8, 8))
    except ValueError as error:
        found["refused"].append(str(error))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
