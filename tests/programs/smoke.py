"""What must work with every version of the libraries that kseg allows, in well under a minute; no test framework.

python tests/programs/smoke.py FOLDER      (FOLDER is made; KERAS_BACKEND=jax leaves out the SavedModel)
"""

import importlib.metadata
import pathlib
import sys

import kseg
from kseg.data.synthetic.dataset import draw_cityscapes, frame_paths

LIBRARIES = ("tensorflow", "keras", "keras-cv", "numpy", "jax", "scipy", "pillow", "protobuf", "h5py")


def versions():
    """Name and version of the libraries that are installed, in a line."""
    found = {entry.metadata["Name"].lower(): entry.version for entry in importlib.metadata.distributions()}
    return ", ".join(f"{name} {found[name]}" for name in LIBRARIES if name in found)


def main(folder):
    """Draw streets, make records, train two steps of SegNet-ASPP, score, export, read back and predict."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    draw_cityscapes(folder / "streets", train=4, val=2, height=48, width=96, workers=1)
    kseg.prepare_dataset("cityscapes", folder / "streets", folder / "records", workers=1, progress=False)
    model, history = kseg.train(
        "segnet_aspp",
        folder / "records",
        folder / "run",
        model_options={"base_filters": 2},
        epochs=0,
        train_steps=2,
        batch_size=2,
        height=32,
        width=64,
    )
    import keras
    import numpy as np

    assert [row["step"] for row in history] == [2]
    scores = kseg.evaluate(folder / "run", folder / "records")
    assert scores.images == 2 and scores.confusion_matrix.sum() > 0
    photograph = frame_paths(folder / "streets", "val", 0)[0]
    labels = kseg.predict(model, photograph)
    assert labels.shape == (48, 96) and labels.max() < 19
    if keras.backend.backend() == "tensorflow":
        again = kseg.predict(kseg.load_model(folder / "run" / "saved_model"), photograph)
        assert np.mean(again == labels) > 0.99, np.mean(again == labels)  # ties may fall either way
    deeplab = kseg.build_model("deeplabv3", (32, 32, 3), 3, encoder="vgg16", base_filters=4)
    print(type(deeplab.get_layer("aspp")).__module__)
    print(f"smoke test passed: Python {sys.version.split()[0]}, {keras.backend.backend()}: {versions()}")


if __name__ == "__main__":
    main(sys.argv[1])
