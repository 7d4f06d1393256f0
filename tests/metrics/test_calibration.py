"""Calibration of pixels, against MAPIE, scikit-learn and numbers worked out by hand."""

import numpy as np
import pytest
from mapie.metrics.calibration import expected_calibration_error
from sklearn.calibration import calibration_curve

from kseg.io.errors import InputError
from kseg.metrics.calibration import CalibrationCounts


def scene(seed, shape=(40, 50), classes=4):
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, shape)
    confidence = random.beta(4, 1.5, shape).astype(np.float32)
    # Right less often than it is confident, as trained networks are.
    right = random.random(shape) < confidence**1.7
    prediction = np.where(right, truth, (truth + random.integers(1, classes, shape)) % classes)
    truth = np.where(random.random(shape) < 0.2, 255, truth)
    return truth, prediction, confidence


def test_bins_by_hand():
    counts = CalibrationCounts(2, bins=4)
    counts.add([0, 0, 1, 255], [0, 1, 1, 0], [0.5, 0.75, 1.0, 0.1])  # an upper edge belongs to its bin
    found = counts.calibration()
    np.testing.assert_array_equal(found.pixels, [0, 1, 1, 1])
    np.testing.assert_array_equal(found.accuracy[1:], [1, 0, 1])
    assert found.expected_error == pytest.approx((abs(1 - 0.5) + abs(0 - 0.75) + 0) / 3)
    assert found.largest_error == pytest.approx(0.75)
    assert found.to_json()["accuracy"][0] is None


@pytest.mark.parametrize("bins", [7, 15])
def test_it_equals_scikit_learns_curve_over_all_images(bins):
    scenes = [scene(seed) for seed in range(3)]
    counts = CalibrationCounts(4, bins=bins)
    for truth, prediction, confidence in scenes:
        counts.add(truth, prediction, confidence)
    truth, prediction, confidence = (np.concatenate([part[i].ravel() for part in scenes]) for i in range(3))
    valid = truth != 255
    right = (truth == prediction)[valid]
    accuracy, mean = calibration_curve(right, confidence[valid].astype(float), n_bins=bins)
    found = counts.calibration()
    filled = found.pixels > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy, rtol=1e-12)
    np.testing.assert_allclose(found.confidence[filled], mean, rtol=1e-12)
    sizes, _ = np.histogram(confidence[valid], np.linspace(0, 1, bins + 1))
    expected = np.sum(sizes[sizes > 0] * np.abs(accuracy - mean)) / valid.sum()
    assert found.expected_error == pytest.approx(expected, rel=1e-12)
    assert 0.05 < expected < 0.3  # the scenes are over-confident, else nothing is tested


@pytest.mark.parametrize("bins", [7, 15])
def test_the_expected_error_equals_mapies(bins):
    random = np.random.default_rng(bins)
    logits = random.normal(0, 2, (3, 40, 50, 5))
    truth = np.argmax(logits / 2 + random.gumbel(size=logits.shape), -1)  # half as sure as the logits say
    truth[random.random(truth.shape) < 0.2] = 255
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    counts = CalibrationCounts(5, bins=bins)
    for labels, image in zip(truth, probabilities, strict=True):
        counts.add(labels, image.argmax(-1), image.max(-1))
    scored = probabilities[truth != 255]
    right = (scored.argmax(-1) == truth[truth != 255]).astype(int)
    expected = expected_calibration_error(right, scored, num_bins=bins, split_strategy="uniform")
    assert counts.calibration().expected_error == pytest.approx(expected, rel=1e-9)
    assert 0.05 < expected < 0.3  # else nothing is tested


def test_nothing_valid_is_nan_not_zero():
    counts = CalibrationCounts(3)
    counts.add(np.full((2, 2), 255), np.zeros((2, 2)), np.ones((2, 2)))
    assert np.isnan(counts.calibration().expected_error)
    assert counts.calibration().to_json()["expected_calibration_error"] is None


def test_what_is_no_confidence_is_refused():
    counts = CalibrationCounts(3)
    for confidence in ([1.5], [-0.1], [np.nan]):
        with pytest.raises(InputError, match="confidence must be of 0 to 1"):
            counts.add([0], [0], confidence)
    with pytest.raises(InputError, match="one shape"):
        counts.add([0, 1], [0], [0.5])
