"""Temperature scaling: what is fitted, and that the model carries it and labels as before."""

import numpy as np
import pytest
import tiny

import kseg
from kseg.evaluation.temperature import LAYER, fit_temperature, with_temperature

IMAGE = np.random.default_rng(5).integers(0, 256, (32, 48, 3), np.uint8)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny.write_records(tmp_path_factory.mktemp("temperature"))


@pytest.fixture(scope="module")
def model():
    """Its border between the first two classes is 12 off, and it is as sure there as elsewhere."""
    model = tiny.brightness_model()
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, bias + np.array([0, -12, -12], "float32")])
    return model


@pytest.fixture(scope="module")
def calibrated(model, records):
    return kseg.calibrate(model, records)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_the_labels_were_drawn_with_is_found(temperature):
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (40000, 5))
    gumbel = random.gumbel(size=logits.shape)
    labels = np.argmax(logits / temperature + gumbel, axis=1)  # draws from softmax(logits / temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.03)


def test_labels_stay_and_confidences_are_those_of_the_divided_logits(model, calibrated):
    scaled, found = calibrated
    assert not 0.8 < found.value < 1.25  # else the test shows nothing
    before, sure = kseg.predict(model, IMAGE, return_confidence=True)
    after, honest = kseg.predict(scaled, IMAGE, return_confidence=True)
    np.testing.assert_array_equal(before, after)
    logits = np.asarray(model(IMAGE[None].astype("float32")), np.float64)[0] / found.value
    expected = 1 / np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)
    np.testing.assert_allclose(honest, expected, atol=1e-4)
    assert np.abs(honest - sure).max() > 0.05


def test_the_loss_falls_and_the_scores_stay(model, calibrated, records):
    scaled, found = calibrated
    assert found.loss_after < found.loss_before and found.error_after < found.error_before
    assert found.images == 5 and found.pixels == 5 * (32 - 2) * 48  # two rows of each label are void
    before, after = (kseg.evaluate(each, records) for each in (model, scaled))
    np.testing.assert_array_equal(before.confusion_matrix, after.confusion_matrix)
    # A little warmer or colder is worse.
    for factor in (0.9, 1.1):
        _, other = kseg.calibrate(with_temperature(model, found.value * factor), records)
        assert other.value == pytest.approx(found.value, rel=1e-2)  # the old temperature is replaced, not multiplied


def test_files_carry_it(calibrated, tmp_path):
    scaled, found = calibrated
    scaled.save(tmp_path / "model.keras")
    again = kseg.load_model(tmp_path / "model.keras")
    assert again.get_layer(LAYER).scale == pytest.approx(1 / found.value)
    wanted = kseg.predict(scaled, IMAGE, return_confidence=True)[1]
    np.testing.assert_allclose(kseg.predict(again, IMAGE, return_confidence=True)[1], wanted, atol=1e-6)


def test_what_has_no_logits_is_refused(records, tmp_path):
    (tmp_path / "maps").mkdir()
    with pytest.raises(kseg.InputError, match="Only a keras.Model gives logits|label maps"):
        kseg.calibrate(tmp_path / "maps", records)


def test_a_model_without_a_mistake_has_no_best_temperature(records):
    with pytest.raises(kseg.InputError, match="labels all 7200 pixels of split val right"):
        kseg.calibrate(tiny.brightness_model(), records)
