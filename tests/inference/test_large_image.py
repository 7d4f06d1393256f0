"""The largest image that predict takes, in bounded memory."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from kseg import layers

WIDTH, HEIGHT, CLASSES = 16384, 8192, 19
MOST_BYTES = 4e9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # of the test's own opening
def test_the_largest_image_takes_less_than_4_gb(tmp_path, root):
    """All four files of 134 million pixels and 19 classes. It takes some minutes."""
    label_set = {
        "name": "x",
        "classes": [f"class {i}" for i in range(CLASSES)],
        "palette": [[10 * i, 50, 200 - 10 * i] for i in range(CLASSES)],
    }
    image = keras.Input((None, None, 3))
    x = layers.Preprocess((124, 116, 104), (60, 60, 60), multiple=32, label_set=label_set, name="preprocess")(image)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear")(keras.layers.Conv2D(CLASSES, 1)(x))
    keras.Model(image, x).save(tmp_path / "model.keras")
    tile = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(np.tile(tile, (HEIGHT // 256, WIDTH // 256, 1))).save(tmp_path / "aerial.tif")
    command = [sys.executable, "-m", "kseg", "predict", "--model=model.keras", "--images=aerial.tif", "--output=out"]
    command += ["--tile=1024", "--write=labels,color,overlay,confidence"]
    running = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)})
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    assert running.returncode == 0
    for name in ("aerial.png", "color/aerial.png", "overlay/aerial.png", "confidence/aerial.png"):
        with Image.open(tmp_path / "out" / name) as written:
            assert written.size[0] == WIDTH
            # The legend of so many classes stands below the overlay.
            assert written.size[1] > HEIGHT if name.startswith("overlay") else written.size[1] == HEIGHT
    assert 1024 * usage.ru_maxrss < MOST_BYTES
