"""benchmarks/decoder_table.py: that the table of docs/reference/decoders.md is what is counted anew."""

import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from benchmarks import decoder_table
from kseg.io.errors import InputError
from kseg.models import build_model
from kseg.models.backbones import ENCODERS

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINES = (ROOT / "docs" / "reference" / "decoders.md").read_text(encoding="utf-8").splitlines()
CELLS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in LINES if line.startswith("|")]


def test_the_committed_table_has_every_decoder_and_encoder():
    head, _, strides, backends, *rows = CELLS
    names = [cell.strip("`") for cell in head[1:]]
    assert names == decoder_table.decoders() and len(names) >= 8
    assert {f"`{encoder}`" for encoder in ENCODERS} <= {row[0] for row in rows}
    dilated = [name for name, stride in zip(names, strides[1:], strict=True) if stride == "16"]
    assert dilated == ["deeplabv3", "deeplabv3plus"] and set(strides[1:]) == {"16", "32"}
    assert set(backends[1:]) == {"both"}  # below, on JAX


ON_JAX = """
import sys
sys.modules["tensorflow"] = None  # importing it raises ImportError from here on
import keras, numpy, kseg
for name in sys.argv[1:]:
    model = kseg.build_model(name, (64, 64, 3), 3, encoder="vgg16", base_filters=2)
    scores = numpy.asarray(model(numpy.zeros((1, 64, 64, 3), "uint8"), training=False))
    assert keras.backend.backend() == "jax" and scores.shape == (1, 64, 64, 3) and numpy.isfinite(scores).all(), name
"""


def test_every_decoder_runs_on_jax():
    pytest.importorskip("jax", reason="pip install -e '.[test]'")
    command = [sys.executable, "-c", ON_JAX, *decoder_table.decoders()]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


FAST = ("fpn", "segformer", "deeplabv3plus")
PAIRS = [
    pytest.param(name, encoder, marks=() if encoder == "vgg16" and name in FAST else pytest.mark.slow)
    for encoder in ENCODERS
    for name in decoder_table.decoders()
]


@pytest.mark.parametrize(("name", "encoder"), PAIRS)
def test_a_cell_is_what_is_counted_now(name, encoder, monkeypatch):
    """Parameters and multiply-adds; the output stride of its column is that of the smallest map of several pixels.

    Squeeze-and-excite of a dilated encoder means over a grid of every second pixel, which is no map.
    """
    deepest = []

    def built(*args, **options):
        model = build_model(*args, **options)
        height = model.input_shape[1]
        maps = [layer.output for layer in model.layers[1:] if not layer.name.endswith("_dilated_grid")]
        sizes = [tensor.shape for tensor in maps if len(tensor.shape) == 4]
        deepest.append(max(height // shape[1] for shape in sizes if shape[1] > 1))
        return model

    monkeypatch.setattr(decoder_table, "build_model", built)
    column = CELLS[0].index(f"`{name}`")
    (row,) = [row for row in CELLS if row[0] == f"`{encoder}`"]
    assert row[column] == decoder_table.cost(name, encoder)
    assert CELLS[2][column] == str(deepest[0])


def test_a_cell_is_parameters_and_multiply_adds(monkeypatch):
    """SegFormer's head of 16 on VGG16 of 4 filters at 32x64: counted layer by layer."""
    monkeypatch.setattr(decoder_table, "SHAPE", (32, 64, 3))
    monkeypatch.setattr(decoder_table, "build_model", lambda *a, **options: build_model(*a, base_filters=4, **options))
    adds = 0
    parameters = 0
    channels = 3
    for places, widths in ((2048, (4, 4)), (512, (8, 8)), (128, (16,) * 3), (32, (32,) * 3), (8, (32,) * 3)):
        for width in widths:
            adds += places * 9 * channels * width
            parameters += 9 * channels * width + width
            channels = width
    for places, width in ((2, 32), (8, 32), (32, 32), (128, 16)):  # strides 32, 16, 8 and 4
        adds += places * width * 16
        parameters += width * 16 + 16
    adds += 128 * (64 * 16 + 16 * 11)  # at stride 4: all levels to 16, the scores of 11 classes
    parameters += 64 * 16 + 3 * 16 + 17 * 11
    assert decoder_table.cost("segformer", "vgg16") == f"{parameters / 1e6:.2f} M, {adds / 1e9:.4g} G"


def test_what_cannot_be_built_is_a_dash_and_a_reason(monkeypatch):
    def cost(decoder, encoder):
        if encoder == "second":
            raise InputError("it cannot be dilated")
        return "1 M, 2 G"

    monkeypatch.setattr(decoder_table, "cost", cost)
    lines = decoder_table.table(["fpn", "deeplabv3"], ["first", "second"])
    assert list(lines) == [
        "| encoder | `fpn` | `deeplabv3` |",
        "| --- | --- | --- |",
        "| output stride | 32 | 16 |",
        "| backends | both | both |",
        "| `first` | 1 M, 2 G | 1 M, 2 G |",
        "| `second` | - | - |",
        "",
        "- `fpn` on `second`: it cannot be dilated",
        "- `deeplabv3` on `second`: it cannot be dilated",
    ]
