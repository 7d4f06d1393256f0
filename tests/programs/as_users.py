"""What test_as_users.py runs in a process of its own, with users' kernels and XLA: every model once."""

import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import keras
import numpy as np

from kseg import losses
from kseg.models import MODELS, build_model
from kseg.training.trainers import make_trainer

SIZE = (32, 32)
CLASSES = 3
RATE = 0.1


def images_and_labels():
    """A batch of four; classes follow the brightness, a row is void."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, *SIZE, 3), np.uint8)
    labels = np.digitize(images.mean(-1), [90, 160]).astype(np.uint8)
    labels[:, 0] = 255
    return images, labels


def build(name):
    """A narrow model, the same weights in every process."""
    keras.utils.set_random_seed(1)
    # Batch norms over the few values of a ResNet's deepest map make another gradient of each rounding: DeepLabV3's need
    # eight filters, and the others, whose pyramids have smaller epsilons or that go to stride 32, an encoder without.
    options = {"base_filters": 2}
    if name == "deeplabv3":
        options["base_filters"] = 8
    elif name in ("deeplabv3plus", "fpn", "segformer"):
        options |= {"encoder": "vgg16", "decoder_filters": 16}
    return build_model(name, (*SIZE, 3), CLASSES, **options)


def weights_of(model):
    """All but the states of random generators, by path; without the numbers that Keras gives through a process."""
    weights = [weight for weight in model.weights if "seed" not in weight.path]
    return {f"{i} {re.sub(r'_[0-9]+(?=/)', '', w.path)}": np.asarray(w) for i, w in enumerate(weights)}


def run(name):
    """Return {what: array}: the logits, the loss of one step of the training trainer, the weights after it."""
    images, labels = images_and_labels()
    trainer = make_trainer("one", len(images))
    with trainer.scope():
        model = build(name)
        optimizer = keras.optimizers.SGD(RATE)
    results = {"logits": np.asarray(model(images, training=False))}
    trainer.build(model, optimizer, CLASSES, losses.loss_terms("cross_entropy"))
    trainer.train_step(1, (images, labels))
    trainer.check_weights(1)
    return results | {"loss": np.float64(trainer.loss_sum)} | weights_of(model)


def main(folder):
    from kseg.io.runtime import describe_kernels

    print(describe_kernels()[0], "| XLA_FLAGS", os.environ.get("XLA_FLAGS"))
    for name in MODELS:
        np.savez(f"{folder}/{name}.npz", **run(name))


if __name__ == "__main__":
    main(sys.argv[1])
