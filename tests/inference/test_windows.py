"""Sliding windows: every pixel is covered by windows that have context, and the blend is a mean."""

import numpy as np
import pytest

from kseg.inference import windows

SIDES = [(1, 64, 32), (64, 64, 32), (65, 64, 32), (96, 64, 32), (100, 64, 32), (1000, 96, 32), (333, 128, 64)]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("length", "tile", "step"), SIDES)
def test_windows_cover_a_side(length, tile, step, full):
    starts = windows.starts_of(length, tile, step, full)
    if full:
        assert all(start + min(tile, length) <= length for start in starts)
    covered = np.zeros(length, int)
    for start in starts:
        covered[start : start + tile] += 1
    assert covered.min() >= 1
    assert starts[-1] < length and (len(starts) == 1 or starts[-2] + tile < length)  # the last one is needed
    total = windows.sum_of({start: windows.weights_of(start, length, tile) for start in starts}, length)
    assert total.min() > 0


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("length", "tile", "step"), SIDES)
def test_a_pixel_counts_only_where_it_has_context(length, tile, step, full):
    for start in windows.starts_of(length, tile, step, full):
        used = np.flatnonzero(windows.weights_of(start, length, tile))
        assert used[0] >= (tile // 8 if start else 0)
        assert used[-1] < tile - (tile // 8 if start + tile < length else 0)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("size", [(50, 70), (64, 64), (150, 333), (97, 64)])
def test_a_blend_of_equal_values_is_that_value(size, full):
    image = np.random.default_rng(0).random((*size, 3), np.float32)
    seen = np.full_like(image, np.nan)
    bands = []
    for rows, band in windows.slide(*size, 64, 32, 3, lambda rows, columns: image[rows, columns], full):
        bands.append(rows)
        seen[rows] = band
    assert [band.start for band in bands] == [0, *[band.stop for band in bands[:-1]]] and bands[-1].stop == size[0]
    np.testing.assert_allclose(seen, image, rtol=1e-5)


def test_the_blend_is_the_weighted_mean_of_the_windows():
    """Against a sum over the whole image at once; each window has values of its own."""
    height, width, tile, step = 150, 140, 64, 32
    random = np.random.default_rng(0)
    values = {}

    def window(rows, columns):
        shape = (rows.stop - rows.start, columns.stop - columns.start, 2)
        return values.setdefault((rows.start, columns.start), random.random(shape, np.float32))

    found = np.concatenate([band.copy() for _, band in windows.slide(height, width, tile, step, 2, window)])
    sums, weights = np.zeros((height, width, 2)), np.zeros((height, width, 1))
    for (top, left), value in values.items():
        weight = np.outer(windows.weights_of(top, height, tile), windows.weights_of(left, width, tile))[..., None]
        place = np.s_[top : top + value.shape[0], left : left + value.shape[1]]
        sums[place] += value * weight
        weights[place] += weight
    assert len(values) == 4 * 4
    np.testing.assert_allclose(found, sums / weights, rtol=1e-4)


def test_steps_are_whole_steps_of_the_coarsest_grid():
    assert windows.step_of(512, 32) == 256
    assert windows.step_of(100, 32) == 32  # half of it, 50, is no multiple
    assert windows.step_of(64, 32) == 32
    assert windows.step_of(100, 1) == 50
