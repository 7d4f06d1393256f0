import colorsys

import numpy as np
import pytest

from kseg.data.augmentation.apply_numpy import PADDING, apply_row, nearest, placement, smooth_label
from kseg.data.augmentation.plan import ROW, color_matrix, epoch_plan
from kseg.settings import Augmentation

WILD = Augmentation(scale_min=0.5, scale_max=2.0, flip=True, brightness=0.2, contrast=0.3, saturation=0.4, hue=0.1)


def row(**values):
    """A plan row that changes nothing but what is given."""
    result = np.zeros((), ROW)
    result["scale"] = 1
    result["color"] = color_matrix(0, 0, 0, 0)
    for name, value in values.items():
        result[name] = value
    return result


def test_plan_is_a_function_of_seed_and_epoch():
    plan = epoch_plan(10, 3, seed=1, epoch=2, augmentation=WILD)
    assert plan.shape == (3, 3)  # 10 records, 3 a step: one rests
    assert np.array_equal(plan, epoch_plan(10, 3, seed=1, epoch=2, augmentation=WILD))
    assert not np.array_equal(plan["record"], epoch_plan(10, 3, seed=1, epoch=3, augmentation=WILD)["record"])
    assert not np.array_equal(plan["record"], epoch_plan(10, 3, seed=2, epoch=2, augmentation=WILD)["record"])


def test_an_epoch_takes_every_record_once_and_ranges_hold():
    plan = epoch_plan(400, 4, seed=0, epoch=0, augmentation=WILD).ravel()
    assert sorted(plan["record"]) == list(range(400))
    assert plan["scale"].min() >= 0.5 and plan["scale"].max() <= 2 and np.ptp(plan["scale"]) > 1.3
    assert 0.4 < plan["flip"].mean() < 0.6
    assert plan["top"].min() >= 0 and plan["top"].max() < 1
    still = epoch_plan(4, 4, seed=0, epoch=0, augmentation=Augmentation()).ravel()
    assert not still["flip"].any() and (still["scale"] == 1).all()
    assert np.allclose(still["color"], np.eye(3, 4), atol=1e-6)


def test_too_few_records_for_a_step():
    with pytest.raises(ValueError, match="batch of 4 needs .* got 3"):
        epoch_plan(3, 4, seed=0, epoch=0, augmentation=WILD)


def test_rows_that_rest_change_from_epoch_to_epoch():
    used = [set(epoch_plan(5, 4, 0, epoch, WILD)["record"].ravel()) for epoch in range(20)]
    assert set.union(*used) == set(range(5))


def test_color_matrix_by_hand():
    def apply(matrix, pixel):
        return matrix[:, :3] @ pixel + matrix[:, 3]

    pixel = np.array([200.0, 100.0, 50.0])
    assert np.allclose(apply(color_matrix(0.1, 0, 0, 0), pixel), pixel + 25.5)
    assert np.allclose(apply(color_matrix(0, 0.5, 0, 0), pixel), 127.5 + 1.5 * (pixel - 127.5))
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50  # no saturation left: grey of the same luma
    assert np.allclose(apply(color_matrix(0, 0, -1, 0), pixel), luma, atol=0.05)
    turned = apply(color_matrix(0, 0, 0, 1 / 3), np.array([160.0, 100.0, 100.0]))
    hue = colorsys.rgb_to_hsv(*turned)[0]  # a third of the circle away from red, whichever way
    assert min(abs(hue - 1 / 3), abs(hue - 2 / 3)) < 0.06
    assert np.allclose(apply(color_matrix(0, 0, 0, 1), pixel), pixel)  # a whole turn
    grey = np.full(3, 90.0)
    assert np.allclose(apply(color_matrix(0, 0, 0.7, 0.2), grey), grey, atol=0.05)


def test_placement_by_hand():
    assert placement(10, 2.0, 0.0, 10) == (20, 0, 10, 0)  # the first crop
    assert placement(10, 2.0, 0.999, 10) == (20, 10, 10, 0)  # the last one: rows 10..19
    assert placement(10, 0.5, 0.0, 10) == (5, 0, 5, 0)  # padded behind
    assert placement(10, 0.5, 0.999, 10) == (5, 0, 5, 5)  # padded before
    assert placement(10, 1.0, 0.999, 10) == (10, 0, 10, 0)
    assert placement(10, 1.0, 0.999, 4) == (10, 6, 4, 0)  # rows 6..9, the last four
    assert placement(10, 0.5, 0.999, 4) == (5, 1, 4, 0)  # scaled to 5 first
    assert placement(10, 0.2, 0.999, 4) == (2, 0, 2, 2)


def test_the_largest_share_stays_inside():
    largest = np.nextafter(np.float32(1), np.float32(0))
    for size, scale in ((160, 1.25), (1024, 2.0), (97, 0.51)):
        scaled, start, length, before = placement(size, np.float32(scale), largest, size)
        assert start + length <= scaled and before + length <= size


def test_nearest_takes_the_pixel_under_the_centre():
    assert nearest(4, 2).tolist() == [1, 3]  # centres at 1.0 and 3.0
    assert nearest(2, 4).tolist() == [0, 0, 1, 1]
    assert nearest(5, 5).tolist() == [0, 1, 2, 3, 4]


def test_half_size_pads_label_with_ignore_and_image_with_the_mean():
    image = np.full((4, 8, 3), 200, np.uint8)
    label = np.full((4, 8), 7, np.uint8)
    got, got_label = apply_row(image, label, row(scale=0.5, top=0.999, left=0.0), 4, 8)
    expected = np.full((4, 8), 255)
    expected[2:, :4] = 7  # 2x4 pixels at the bottom left
    assert np.array_equal(got_label, expected)
    assert (got[2:, :4] == 200).all() and (got[:2] == PADDING).all() and (got[:, 4:] == PADDING).all()


def test_flip_mirrors_image_and_label_together():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (4, 6, 3), np.uint8)
    label = random.integers(0, 3, (4, 6), np.uint8)
    got, got_label = apply_row(image, label, row(flip=True), 4, 6)
    assert np.array_equal(got, image[:, ::-1]) and np.array_equal(got_label, label[:, ::-1])


def test_a_crop_is_a_window_of_the_whole():
    random = np.random.default_rng(2)
    image = random.integers(0, 256, (16, 24, 3), np.uint8)
    label = random.integers(0, 3, (16, 24), np.uint8)
    whole = apply_row(image, label, row(), 8, 12)
    got = apply_row(image, label, row(top=0.5, left=0.999), 8, 12, crop=(4, 6))
    for part, expected in zip(got, whole, strict=True):
        assert np.array_equal(part, expected[2:6, 6:12])  # int(0.5 * (8 - 4 + 1)) rows down, the last 6 columns
    got, got_label = apply_row(image, label, row(), 8, 12, crop=(10, 6))
    assert got.shape == (10, 6, 3) and (got[8:] == PADDING).all() and (got_label[8:] == 255).all()


def test_smooth_labels_are_mixed_like_grey_levels():
    label = np.array([[7, 11, 20, 21], [7, 11, 20, 21]], np.uint8)
    # Half the size: a pixel in the middle is the triangle 1/8, 3/8, 3/8, 1/8 over four; at the edge the one outside
    # falls away and 3/7, 3/7, 1/7 remain.
    expected = [(3 * 7 + 3 * 11 + 20) / 7, (11 + 3 * 20 + 3 * 21) / 7]  # 10.6 and 19.1
    assert smooth_label(label, 1, 2).tolist() == [[11, 19]] == [[round(value) for value in expected]]
    assert np.array_equal(smooth_label(label, 2, 4), label)


def test_scaled_labels_hold_no_new_ids():
    label = np.random.default_rng(1).choice([0, 3, 7, 18, 255], (24, 32)).astype(np.uint8)
    image = np.zeros((24, 32, 3), np.uint8)
    for plan_row in epoch_plan(8, 8, 3, 0, WILD)[0]:
        assert set(np.unique(apply_row(image, label, plan_row, 24, 32)[1])) <= {0, 3, 7, 18, 255}
