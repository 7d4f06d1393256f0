"""kseg.metrics.bootstrap: against a naive loop over images, and where the distribution of the resamples is known."""

import numpy as np
import pytest

from kseg.metrics import SCORE_NAMES, five_scores
from kseg.metrics.bootstrap import ImageCounts, Interval, paired_bootstrap, resampled_sums, scores_of_counts

CLASSES = 4
MODELS = 3


def random_matrices(images, seed=0):
    """Confusion matrices (n, M, C, C + 1) of one truth an image; class 3 is in the first truth alone."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 60, (images, CLASSES))
    pixels[1:, 3] = 0
    shares = random.dirichlet(np.ones(CLASSES + 1) / 2, (images, MODELS, CLASSES))
    return np.array([[[random.multinomial(p, s) for p, s in zip(pixels[i], shares[i, m], strict=True)]
                      for m in range(MODELS)] for i in range(images)])  # fmt: skip


def counts_of(matrices):
    counts = ImageCounts()
    for image in matrices:
        counts.add(image)
    return counts.array()


def naive_scores(matrix):
    """All scores of one summed matrix, from kseg.metrics' scores of each class that the truth has."""
    micro, each = (five_scores(matrix, average) for average in ("micro", None))
    there = matrix.sum(axis=1) > 0
    each = {name: np.where(there, score, np.nan) for name, score in each.items()}
    macro = {name: np.nanmean(score) for name, score in each.items()}
    named = {f"micro_{name}": micro[name] for name in ("accuracy", "specificity", "jaccard")}
    iou = macro["jaccard"]
    pixel_accuracy = micro["sensitivity"]
    return {**macro, **named, "mean_iou": iou, "pixel_accuracy": pixel_accuracy, "per_class": each["jaccard"]}


def test_compact_counts_give_the_scores_of_the_matrices():
    matrices = random_matrices(5)
    found = scores_of_counts(counts_of(matrices).sum(axis=0))
    assert set(SCORE_NAMES) < set(found)
    for m in range(MODELS):
        for name, expected in naive_scores(matrices[:, m].sum(axis=0)).items():
            np.testing.assert_allclose(found[name][m], expected, rtol=1e-15, err_msg=name)


@pytest.mark.parametrize("groups", [None, ["b", "a", "b", "c", "a", "a"]])
def test_against_a_naive_loop(groups):
    """Draw rows by the same weights, sum whole matrices image by image, score each with kseg.metrics."""
    matrices = random_matrices(6)
    resamples = 60
    names = np.array(groups or list("abcdef"))
    kinds = np.unique(names)
    random = np.random.default_rng(7)
    drawn = {}
    for weights in random.multinomial(len(kinds), np.full(len(kinds), 1 / len(kinds)), size=resamples):
        totals = np.zeros(matrices.shape[1:], np.int64)
        for kind, weight in zip(kinds, weights, strict=True):
            for image in np.flatnonzero(names == kind):
                totals += weight * matrices[image]
        first, *others = (naive_scores(total) for total in totals)
        for m, other in enumerate(others):
            for name in first:
                drawn.setdefault((m, name), []).append(np.asarray(other[name]) - first[name])
    found = paired_bootstrap(counts_of(matrices), groups, resamples=resamples, seed=7)
    whole = [naive_scores(total) for total in matrices.sum(axis=0)]
    assert len(found) == MODELS - 1
    for (m, name), values in drawn.items():
        expected = whole[m + 1][name] - whole[0][name]
        intervals = found[m][name]
        values = np.array(values).reshape(resamples, -1)
        for c, interval in enumerate(intervals if name == "per_class" else [intervals]):
            kept = values[~np.isnan(values[:, c]), c]
            assert interval.difference == pytest.approx(np.atleast_1d(expected)[c])
            assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(kept, [0.025, 0.975])))
            assert interval.above == pytest.approx((np.sign(kept).mean() + 1) / 2)


def test_two_groups_give_three_values():
    """Of two groups a resample has two of the first, one of each, or two of the second: shares 1/4, 1/2, 1/4."""
    counts = ImageCounts()
    for first, second in ((5, 9), (5, 9), (6, 6), (6, 6)):
        counts.add([[[n, 10 - n, 0], [0, 0, 0]] for n in (first, second)])
    (found,) = paired_bootstrap(counts.array(), ["north", "north", "south", "south"], resamples=2000)
    interval = found["pixel_accuracy"]
    assert interval.difference == pytest.approx(0.2)  # (4 + 4 + 0 + 0) / 40
    assert (interval.low, interval.high) == pytest.approx((0, 0.4))
    assert interval.above == pytest.approx(3 / 4 + 1 / 4 / 2, abs=0.02)


def test_a_model_against_itself_is_a_tie():
    matrices = random_matrices(8)[:, [1, 1]]
    (found,) = paired_bootstrap(counts_of(matrices), resamples=50)
    assert found["mean_iou"] == Interval(0.0, 0.0, 0.0, 0.5)
    assert found["per_class"][3] == Interval(0.0, 0.0, 0.0, 0.5)


def test_a_class_without_a_pixel_has_no_interval():
    matrices = random_matrices(3)
    matrices[..., 3, :] = 0
    matrices[..., 4] += matrices[..., 3]
    matrices[..., 3] = 0
    (found, _) = paired_bootstrap(counts_of(matrices), resamples=20)
    assert all(np.isnan(value) for value in vars(found["per_class"][3]).values())
    assert not np.isnan(found["mean_iou"].low)


def test_sums_are_exact_whole_numbers():
    """Weights sum to n, so equal rows give n times the row, also beyond float32 and int32."""
    counts = np.full((6, 1, 2), 3 * 10**12 + 1)
    sums = np.concatenate(list(resampled_sums(counts, resamples=1001, seed=3)))
    assert sums.shape == (1001, 1, 2) and (sums == 6 * (3 * 10**12 + 1)).all()


def test_a_class_that_only_one_model_predicts_is_in_no_mean():
    """18 classes of 100 pixels; the second model is better in each, and takes one pixel for a 19th that is nowhere.

    The first takes 20 of each class for the next one: IoU 80 / 120. The second 18: 82 / 118, and 82 / 117 for the class
    that gets 17. Over the 18 classes it leads by (17 * 82 / 118 + 82 / 117) / 18 - 2 / 3 = .0286; a mean over 19 of
    its own would be .6587, .0080 less than the first's.
    """
    matrices = np.zeros((2, 19, 20), np.int64)
    for matrix, wrong in zip(matrices, (20, 18), strict=True):
        for k in range(18):
            matrix[k, [k, (k + 1) % 18]] = 100 - wrong, wrong
    matrices[1, 0, [1, 18]] = 17, 1
    own = [five_scores(matrix, "macro")["jaccard"] for matrix in matrices]
    assert own[1] - own[0] == pytest.approx(-0.0080, abs=5e-5)
    (found,) = paired_bootstrap(counts_of([matrices, matrices]), resamples=20)
    expected = (17 * 82 / 118 + 82 / 117) / 18 - 2 / 3
    for interval in (found["mean_iou"], found["jaccard"]):
        assert (interval.difference, interval.low, interval.high) == pytest.approx((expected,) * 3)
        assert interval.above == 1
    assert all(interval.difference > 0 for interval in found["per_class"][:18])
    assert np.isnan(found["per_class"][18].difference)


def test_a_resample_has_the_classes_of_its_own_truth():
    """Image 1 has classes 0 and 1, both models right; image 2 class 0 alone, of which model 2 takes a tenth for 1.

    Of two images a resample has twice the first (1/4): difference 0. Once each (1/2): IoU of 0 is 190 / 200, of 1
    100 / 110, so (190 / 200 + 100 / 110) / 2 - 1. Twice the second (1/4): class 1 is in no truth, so 180 / 200 - 1.
    """
    both, one = np.zeros((2, 2, 2, 3), np.int64)
    both[:, 0, 0] = both[:, 1, 1] = 100
    one[0, 0, 0] = 100
    one[1, 0] = (90, 10, 0)
    (found,) = paired_bootstrap(counts_of([both, one]), resamples=400)
    mixed = (190 / 200 + 100 / 110) / 2 - 1  # -.070
    interval = found["mean_iou"]
    assert (interval.difference, interval.low, interval.high) == pytest.approx((mixed, -0.1, 0))
    assert interval.above == pytest.approx(1 / 4 / 2, abs=0.03)
    # Class 1 itself: only resamples whose truth has it count, and it never is worse than 100 / 110.
    assert found["per_class"][1].low == pytest.approx(100 / 110 - 1)


def test_bad_input():
    counts = counts_of(random_matrices(3))
    with pytest.raises(ValueError, match="a group for each image, got 3 models, 3 images and 2 groups"):
        paired_bootstrap(counts, ["a", "b"])
    with pytest.raises(ValueError, match="two models or more"):
        paired_bootstrap(counts[:, :3])
    with pytest.raises(ValueError, match="the same truth"):
        ImageCounts().add([[[1, 0, 0], [0, 0, 0]], [[2, 0, 0], [0, 0, 0]]])
