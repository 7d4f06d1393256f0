"""Encoders where there is no TensorFlow: built, dilated, trained for a step, saved and loaded.

KERAS_BACKEND=jax python tests/programs/encoders_on_jax.py FOLDER ENCODER...
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
sys.modules["tensorflow"] = None  # importing it raises ImportError from here on

import encoding
import keras
import numpy as np

import kseg
from kseg.models.backbones import efficientnet_lite


def main(folder, *names):
    """Print what was found as JSON on the last line."""
    found = {"backend": keras.backend.backend()}
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), dtype="uint8")
    efficientnet_lite.STAGES = encoding.SHORT  # XLA compiles each layer
    for name in names:
        keras.utils.set_random_seed(0)
        model = encoding.with_scores((32, 64, 3), 3, encoder=name, output_stride=16)
        before = [np.asarray(variable.value) for variable in model.trainable_variables]
        model.compile(keras.optimizers.SGD(0.01), loss=kseg.losses.CrossEntropy())
        loss = model.fit(images, np.zeros((2, 32, 64), "uint8"), batch_size=2, verbose=0).history["loss"][0]
        after = [np.asarray(variable.value) for variable in model.trainable_variables]
        changed = [bool((old != new).any()) for old, new in zip(before, after, strict=True)]
        path = pathlib.Path(folder, f"{name}.keras")
        model.save(path)
        same = np.array_equal(kseg.load_model(path)(images), model(images))
        found[name] = {"loss": float(loss), "changed": sum(changed) / len(changed), "same": same}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
