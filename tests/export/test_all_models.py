"""Every model and every encoder in every format, of fixed and of free size."""

import keras
import numpy as np
import pytest
import tiny
from PIL import Image

from kseg.export import EXPORTERS
from kseg.export.export_model import export_model
from kseg.export.proof_images import ProofImages
from kseg.inference.outside.carried_files import REPORT, carried_table
from kseg.models import MODELS, build_model, options_of
from kseg.models.backbones import ENCODERS

SIZE = (64, 96)
CASES = {name: (name, {"depth": 2} if "depth" in options_of(name) else {}) for name in MODELS}
CASES |= {f"fpn-{encoder}": ("fpn", {"encoder": encoder}) for encoder in ENCODERS}
CASES["unet-efficientnet_lite0"] = ("unet", {"encoder": "efficientnet_lite0"})
CASES["r2unet-separate"] = ("r2unet", {"depth": 2, "recurrence": "separate"})


def build(case, size):
    name, options = CASES[case]
    if "encoder" not in options or ENCODERS[options["encoder"]].network is None:  # the others have their own widths
        options = {"base_filters": 4, **options}
    keras.utils.set_random_seed(0)
    model = build_model(name, (*size, 3), 3, **options)
    for norm in model._flatten_layers():  # statistics of a trained model, not 0 and 1
        if isinstance(norm, keras.layers.BatchNormalization):
            norm.moving_mean.assign(0.1 * keras.random.normal(norm.moving_mean.shape, seed=1))
            norm.moving_variance.assign(keras.random.uniform(norm.moving_variance.shape, 0.5, 1.5, seed=2))
    logits = model(np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8))
    model.get_layer("preprocess").label_set = tiny.LABELS
    return model, np.asarray(logits)


@pytest.mark.slow
@pytest.mark.parametrize("size", [SIZE, (None, None)], ids=["fixed", "free"])
@pytest.mark.parametrize("case", CASES)
def test_every_model_in_every_format(case, size, tmp_path):
    model, logits = build(case, size)
    assert np.isfinite(logits).all()
    random = np.random.default_rng(1)
    # Smooth, as photographs are: on noise a deep network without training has pixels with two classes nearly equal.
    coarse = [Image.fromarray(random.integers(0, 256, (7, 10, 3), np.uint8)) for _ in range(3)]
    smooth = [np.asarray(image.resize((101, 70), Image.Resampling.BICUBIC)) for image in coarse]
    images = ProofImages("blurs", [(f"{i}", image) for i, image in enumerate(smooth)])
    for format, exporter in EXPORTERS.items():
        if format == "web":  # it holds the ONNX file
            continue
        path = tmp_path / f"model{exporter.suffix}"
        export_model(model, path, format=format, images=images, quick=True)
        found = carried_table(path, exporter.kind, REPORT)["agreement"]
        assert found["pixels"] > 0.999 and found["confidence"] == 1
