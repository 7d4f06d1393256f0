"""Starting from another run: what fits is loaded, what does not begins anew, and both are said."""

import keras
import numpy as np
import pytest
import tiny

from kseg.models import build_model
from kseg.training.finetuning import start_from


def _weights(layer):
    return [keras.ops.convert_to_numpy(weight) for weight in layer.weights]


def _unet(classes, seed, **options):
    keras.utils.set_random_seed(seed)
    return build_model("unet", (16, 16, 3), classes, base_filters=2, depth=2, **options)


def test_another_class_count_begins_with_all_but_the_scores(tmp_path):
    source = _unet(5, seed=1)
    model = _unet(3, seed=2)
    source.get_layer("preprocess").mean = (1.0, 2.0, 3.0)
    source.get_layer("encoder1_conv1_bn").moving_mean.assign([4.0, 5.0])
    source.save(tmp_path / "model.keras")
    scores = _weights(model.get_layer("logits"))
    text = start_from(model, tmp_path / "model.keras")
    layers = [layer for layer in model.layers if layer.weights]
    for layer in layers:
        expected = scores if layer.name == "logits" else _weights(source.get_layer(layer.name))
        assert all(np.array_equal(a, b) for a, b in zip(_weights(layer), expected, strict=True)), layer.name
    assert model.get_layer("preprocess").mean == (1.0, 2.0, 3.0)  # what the weights were trained on
    assert f"{len(layers) - 1} of {len(layers)} layers loaded" in text
    assert (
        "starting from scratch: logits (kernel (1, 1, 2, 5) there, kernel (1, 1, 2, 3) here); not used: logits." in text
    )


def test_layers_that_one_of_the_two_lacks_are_named(tmp_path):
    _unet(3, seed=1).save(tmp_path / "model.keras")
    deeper = build_model("unet", (16, 16, 3), 3, base_filters=2, depth=3)
    text = start_from(deeper, str(tmp_path / "model.keras"))
    assert "encoder3_conv1 (not there)" in text and "decoder2_conv1 (" in text and "encoder1_conv1 (" not in text


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("tiny.keras", ValueError, "no layer of .*tiny.keras .tiny. has the name and shape of one of 'unet'"),
        ("nothing", FileNotFoundError, "No model at .*nothing"),
        ("torn.keras", ValueError, "torn.keras is damaged or not a .keras file"),
    ],
)
def test_a_source_of_no_use_is_an_error_and_changes_nothing(source, error, message, tmp_path):
    other = tiny.build_tiny()
    other.get_layer("logits").name = "scores"
    keras.Model(other.inputs, other.outputs, name="tiny").save(tmp_path / "tiny.keras")
    (tmp_path / "torn.keras").write_bytes((tmp_path / "tiny.keras").read_bytes()[:1000])
    model = _unet(3, seed=1)
    before = model.get_weights()
    with pytest.raises(error, match=message):
        start_from(model, tmp_path / source)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
