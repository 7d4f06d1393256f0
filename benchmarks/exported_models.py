"""Models with weights as training leaves them in every format, for the suite infer."""

import pathlib

import numpy as np

from benchmarks.peers import inputs

FILES = {"SavedModel": "saved_model", "ONNX": "model.onnx", "TFLite": "model.tflite"}  # by the kind of kseg.export
RUNTIMES = {"SavedModel": "TensorFlow, SavedModel", "ONNX": "ONNX Runtime", "TFLite": "LiteRT"}


def write(folder, model, options, height, width, num_classes):
    """Write a model as FILES, weights.npz for PyTorch, image.npy (1, H, W, 3), and labels.npy, which Keras gives.

    The exports are not proved as `kseg export` proves them, on photographs: each contestant compares its labels.
    """
    from kseg.export import EXPORTERS
    from kseg.inference.predict import predict
    from kseg.models import build_model

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    image = inputs.scene(1, height, width, num_classes)[0]
    built = build_model(model, (None, None, 3), num_classes, **options)
    spread(built)
    np.savez(folder / "weights.npz", **arrays(built))
    np.save(folder / "image.npy", image)
    np.save(folder / "labels.npy", predict(built, image[0])[np.newaxis])
    for exporter in EXPORTERS.values():
        if exporter.kind in FILES:
            exporter.functions.write(built, folder / FILES[exporter.kind])


def spread(model):
    """Move every norm away from where it starts: from there, none would do anything."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.rpartition("/")[2] in ("gamma", "moving_variance"):
            weight.assign(random.uniform(0.8, 1.2, weight.shape))
        elif len(weight.shape) == 1:
            weight.assign(random.uniform(-0.1, 0.1, weight.shape))


def arrays(model):
    """Return {"layer/weight": array}; the kernels that ASPP's projection sums are one, over their concatenation."""
    found = {weight.path: np.asarray(weight) for weight in model.weights}
    branches = ("conv", "atrous1", "atrous2", "atrous3", "image")
    parts = [found.pop(f"aspp_projection_{branch}/kernel", None) for branch in branches]
    if parts[0] is not None:
        found["aspp_projection/kernel"] = np.concatenate(parts, axis=2)
        found["aspp_projection/bias"] = found.pop("aspp_projection_conv/bias")
    return found
