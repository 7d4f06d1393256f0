"""What a .keras file says of its model equals what the loaded model says."""

import keras
import pytest

import kseg
from kseg.inference.model_checks import StoredModel, _stored

LABEL_SET = {"name": "own", "classes": ["a", "b"], "palette": [[0, 0, 0], [9, 9, 9]]}


def network(size):
    return kseg.build_model("unet", (*size, 3), 2, base_filters=2, depth=2)


@pytest.mark.parametrize("size", [(32, 64), (None, None)])
@pytest.mark.parametrize("nested", [False, True])
def test_a_file_says_name_size_and_label_set(tmp_path, size, nested):
    model = network(size)
    model.get_layer("preprocess").label_set = LABEL_SET
    if nested:
        images = keras.Input((*size, 3))
        model = keras.Model(images, model(images), name="around")
    model.save(tmp_path / "model.keras")
    assert _stored(tmp_path / "model.keras") == StoredModel(model.name, size, LABEL_SET)


def test_a_file_that_does_not_say_it_is_left_to_keras(tmp_path):
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1)]).save(tmp_path / "plain.keras")
    (tmp_path / "damaged.keras").write_bytes(b"PK\x03\x04 and no zip")
    assert [_stored(tmp_path / name) for name in ("plain.keras", "damaged.keras")] == [None, None]
