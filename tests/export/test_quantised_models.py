"""Real architectures in smaller numbers: a proved file, or a refusal in words and no file."""

import pytest
from PIL import Image
from test_all_models import CASES, build
from test_exports import SUFFIXES, smooth

from kseg.export import EXPORTERS
from kseg.export.export_model import export_model
from kseg.export.proof import LIMITS, ExportError
from kseg.export.proof_images import ProofImages
from kseg.inference.outside.carried_files import REPORT, carried_table

MODELS = ("unet", "r2unet", "segnet", "segnet_aspp", "deeplabv3", "segformer", "fpn-mobilenet_v2")


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["float16", "int8"])
@pytest.mark.parametrize("format", ["onnx", "litert"])
@pytest.mark.parametrize("case", MODELS)
def test_an_export_in_smaller_numbers_is_proved_or_refused(case, format, quantize, tmp_path):
    """An untrained deep network may lose too much in 8 bits: then the message says so. No other error may come."""
    assert case in CASES
    model, _ = build(case, (None, None))
    images = ProofImages("blurs", [(f"{i}", image) for i, image in enumerate(smooth(3, (70, 101)))])
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for name, image in images.images:
        Image.fromarray(image).save(photographs / f"{name}.png")
    path = tmp_path / f"model{SUFFIXES[format]}"
    calibration = photographs if quantize == "int8" else None
    try:
        export_model(
            model, path, format=format, images=images, quick=True, quantize=quantize, calibration_data=calibration
        )
    except ExportError as error:
        assert "Nothing was written" in str(error) and not path.exists()
        return
    report = carried_table(path, EXPORTERS[format].kind, REPORT)
    assert report["quantize"] == quantize and report["agreement"]["pixels"] >= LIMITS[quantize].pixels
