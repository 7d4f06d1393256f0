"""Boundary scores: expectations by hand on small maps, and by brute force over all pairs of pixels."""

import json
import math

import numpy as np
import pytest

from kseg.metrics.boundaries import (
    BoundaryScores,
    boundary_bands,
    boundary_pixels,
    checked_pair,
    match_boundaries,
)

HALVES = np.array([[0] * 5 + [1] * 5] * 6, np.uint8)  # (6, 10): the boundary lies between columns 4 and 5
MOVED = np.array([[0] * 4 + [1] * 6] * 6, np.uint8)  # the same, a pixel to the left


def blobs(seed, classes, size=(14, 17), void=True):
    """A truth and a prediction of coarse random patches, a tenth of the truth void, some predictions no class."""
    rng = np.random.default_rng(seed)
    truth, prediction = (
        np.kron(rng.integers(0, classes, (5, 6)), np.ones((3, 3), int))[: size[0], : size[1]] for _ in range(2)
    )
    prediction = np.where(rng.random(size) < 0.6, truth, prediction)
    prediction[rng.random(size) < 0.03] = 77
    if void:
        truth[rng.random(size) < 0.1] = 255
    return truth.astype(np.uint8), prediction.astype(np.uint8)


def neighbours(y, x, shape):
    near = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
    return [(a, b) for a, b in near if 0 <= a < shape[0] and 0 <= b < shape[1]]


def brute_boundary(labels, valid):
    """{class: its boundary pixels}, by the definition."""
    found = {}
    for y, x in zip(*np.nonzero(valid), strict=True):
        if any(valid[n] and labels[n] != labels[y, x] for n in neighbours(y, x, labels.shape)):
            found.setdefault(int(labels[y, x]), []).append((int(y), int(x)))
    return found


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_matches_equal_brute_force(classes):
    for seed, tolerance in enumerate((0, 1, 2.3, math.sqrt(5), 5)):
        truth, prediction, valid = checked_pair(*blobs(seed, classes), classes)
        sides = [brute_boundary(labels, valid) for labels in (truth, prediction)]
        expected = np.zeros((4, classes), int)
        for c in range(classes):
            one, other = (side.get(c, []) for side in sides)
            for row, (a, b) in ((0, (one, other)), (2, (other, one))):
                hits = [any(math.dist(p, q) <= tolerance for q in b) for p in a]
                expected[row : row + 2, c] = len(hits), sum(hits)
        assert expected[1].sum() and expected[3].sum()
        np.testing.assert_array_equal(match_boundaries(truth, prediction, valid, classes, tolerance), expected)


def test_bands_equal_brute_force():
    for seed, distance in enumerate((1, 2, 4, 30)):
        truth, prediction, valid = checked_pair(*blobs(seed, 4), 4)
        bands = [set(), set()]
        for band, labels in zip(bands, (truth, prediction), strict=True):
            for y, x in zip(*np.nonzero(valid), strict=True):
                box = (slice(max(0, y - distance), y + distance + 1), slice(max(0, x - distance), x + distance + 1))
                if (labels[box][valid[box]] != labels[y, x]).any():
                    band.add((y, x, int(labels[y, x])))
        expected = [
            [sum(p[2] == c for p in kind) for c in range(4)] for kind in (bands[0] & bands[1], bands[0] | bands[1])
        ]
        np.testing.assert_array_equal(boundary_bands(truth, prediction, valid, 4, distance), expected)


def test_f1_by_hand():
    # Boundary pixels of class 0: column 4 in the truth, 3 in the prediction; of class 1: 5 and 4. All are 1 away.
    for tolerance, expected in ((0.99, 0.0), (1, 1.0)):
        scores = BoundaryScores(("a", "b"), tolerance=tolerance, distance=1)
        scores.update(HALVES, MOVED)
        assert scores.result()["boundary_f1"] == expected
    # Class 0 predicted in column 4 of all 6 rows and as a lone pixel at (0, 9): that is a 7th boundary pixel of class
    # 0, without a match (precision 6/7, recall 1, F1 12/13); class 1 has its 6 right ones, and (0, 8) and (1, 9) beside
    # the lone pixel (precision 6/8, recall 1, F1 12/14).
    prediction = HALVES.copy()
    prediction[0, 9] = 0
    scores = BoundaryScores(("a", "b"), tolerance=2, distance=1)
    scores.update(HALVES, prediction)
    each = scores.result()["per_class"]
    assert each["a"]["boundary_f1"] == pytest.approx(12 / 13)
    assert each["b"]["boundary_f1"] == pytest.approx(12 / 14)
    assert scores.result()["boundary_f1"] == pytest.approx((12 / 13 + 12 / 14) / 2)


def test_iou_by_hand_and_summed_over_images():
    # distance 2: class 0 has columns 3, 4 in the truth and 2, 3 in the prediction: 1 of 3; class 1 has 5, 6 and 4, 5.
    scores = BoundaryScores(("a", "b"), distance=2)
    scores.update(HALVES, MOVED)
    assert scores.result()["boundary_iou"] == pytest.approx(1 / 3)
    # Another image, all right, with the band over half as many rows: (1*6 + 2*3) / (3*6 + 2*3) = 1/2, no mean of means.
    scores.update(HALVES[:3], HALVES[:3])
    found = scores.result()
    assert found["boundary_iou"] == found["per_class"]["a"]["boundary_iou"] == pytest.approx(1 / 2)


def test_f1_is_a_mean_over_images_of_means_over_classes_in_the_truth():
    scores = BoundaryScores(("a", "b", "c"), tolerance=0, distance=1)
    scores.update(HALVES, HALVES)  # 1
    scores.update(HALVES, np.full_like(HALVES, 2))  # a and b are nowhere: 0; c is not in the truth and does not count
    third = HALVES.copy()
    third[:, 8:] = 2
    scores.update(third, np.where(third == 2, 1, third))  # a: 1; c: 0; b: columns 5 and 7 of which 5 is found
    # b: recall 6/12, precision 6/6, F1 2/3
    # The other way round c is in the prediction alone and does not count; b: precision 6/12, recall 6/6, F1 2/3.
    scores.update(np.where(third == 2, 1, third), third)
    found = scores.result()
    assert found["boundary_f1"] == pytest.approx((1 + 0 + (1 + 2 / 3 + 0) / 3 + (1 + 2 / 3) / 2) / 4)
    assert [row["boundary_f1"] for row in found["per_class"].values()] == pytest.approx(
        [(1 + 0 + 1 + 1) / 4, (1 + 0 + 2 / 3 + 2 / 3) / 4, 0]
    )
    assert found["images"] == 4


def test_void_is_no_boundary():
    truth = HALVES.copy()
    truth[:, 5] = 255  # hides the boundary: columns 4 and 6 do not touch
    assert not boundary_pixels(*checked_pair(truth, HALVES, 2)[::2]).any()
    scores = BoundaryScores(("a", "b"), tolerance=1, distance=1)
    scores.update(truth, HALVES)  # the predicted boundary lies between columns 4 and 5, which is void
    found = scores.result()
    assert math.isnan(found["boundary_f1"]) and math.isnan(found["boundary_iou"])
    scores.update(truth, MOVED)  # between 3 and 4, both valid: a false boundary; recall 0/0
    assert scores.result()["boundary_f1"] == 0
    # Within 2 columns the other class is seen across the void, from column 4 and from column 6, in both maps.
    scores = BoundaryScores(("a", "b"), distance=2)
    scores.update(truth, HALVES)
    assert scores.result()["boundary_iou"] == 1
    assert boundary_bands(*checked_pair(truth, HALVES, 2), 2, 2).tolist() == [[6, 6], [6, 6]]


def test_defaults_are_shares_of_the_diagonal():
    # 300 x 400: diagonal 500, F1 within 3.75 pixels, IoU within round(2.5) = 2.
    truth = np.zeros((300, 400), np.uint8)
    truth[:, 200:] = 1
    for shift, expected in ((3, 1), (4, 0)):
        scores = BoundaryScores(("a", "b"))
        same = BoundaryScores(("a", "b"), tolerance=3.75, distance=2)
        for one in (scores, same):
            one.update(truth, np.roll(truth, shift, axis=1) * (np.arange(400) >= 100))
        assert scores.result()["boundary_f1"] == expected
        assert scores.result()["per_class"] == same.result()["per_class"]
    scores = BoundaryScores(("a", "b"))
    scores.update(truth, np.roll(truth, 1, axis=1) * (np.arange(400) >= 100))
    assert scores.result()["boundary_iou"] == pytest.approx(1 / 3)  # two columns, moved by one


def test_table_and_json(tmp_path):
    scores = BoundaryScores(("road", "traffic light", "sky"), tolerance=1, distance=2)
    scores.update(HALVES, MOVED)
    scores.to_json(tmp_path / "boundaries.json")
    table = json.loads((tmp_path / "boundaries.json").read_text(), parse_constant=pytest.fail)
    assert table["per_class"]["sky"] == {"boundary_f1": None, "boundary_iou": None}
    assert table["boundary_f1"] == 1 and table["tolerance"] == 1 and table["images"] == 1
    lines = str(scores).splitlines()
    assert lines[1].split() == ["mean", "1.0000", "0.3333"] and lines[4].split() == ["sky", "-", "-"]
    assert "F1 within 1 pixels, IoU within 2 pixels of another class" in lines[-1]
    assert "0.75 % of the diagonal" in str(BoundaryScores(("a",)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BoundaryScores(("a", "a")), "must be different"),
        (lambda: BoundaryScores(("a", "b"), tolerance=-1), "tolerance must be 0 pixels or more, got -1"),
        (lambda: BoundaryScores(("a", "b"), distance=0.5), "distance must be a whole number"),
        (lambda: BoundaryScores(("a", "b")).update(HALVES, HALVES[:3]), r"got \(6, 10\) and \(3, 10\)"),
        (lambda: BoundaryScores(("a", "b")).update(HALVES, HALVES * 0.5), "must be integers"),
        (lambda: checked_pair(HALVES, HALVES, 255), "1 and 254 classes"),
    ],
)
def test_bad_input_gets_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
