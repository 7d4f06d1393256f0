"""The statistics of a study against scipy, statsmodels and cases that are worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from kseg.io.errors import InputError
from kseg.metrics.bootstrap import scores_of_counts
from kseg.studies.statistics import intervals, power, significance, variance
from kseg.studies.statistics.intervals import Estimate, Groups

NEEDS_STATSMODELS = "statsmodels is a test dependency: pip install -e '.[test]'"


def plain_mean(values):
    """Counts (S, n, 3, 1) whose mean IoU is the mean of values (S, n), shares of 1 with four decimals.

    One class, 10,000 pixels of truth in each image, none predicted wrongly: IoU = right / truth.
    """
    right = np.round(10_000 * values).astype(int)
    return np.stack([np.full_like(right, 10_000), right, right], axis=2)[..., None]


def random_counts(seeds=3, images=7, classes=4, seed=0):
    """Counts (S, n, 3, C); class 3 is in the first image alone."""
    random = np.random.default_rng(seed)
    truth = random.integers(1, 500, (images, classes))
    truth[1:, 3] = 0
    right = random.binomial(truth, 0.7, (seeds, images, classes))
    predicted = right + random.integers(0, 90, right.shape)
    return np.stack([np.broadcast_to(truth, right.shape), right, predicted], axis=2)


def layout(seeds, groups, inside, seed, by_seed=0.01, by_group=0.02, by_image=0.02, both=0.01, rest=0.01):
    """Balanced values (S, n) around .6, and the group of each image."""
    random = np.random.default_rng(seed)
    member = np.repeat(np.arange(groups), inside)
    images = len(member)
    values = 0.6 + by_seed * random.standard_normal((seeds, 1)) + by_group * random.standard_normal(groups)[member]
    values = values + by_image * random.standard_normal(images)
    values = values + both * random.standard_normal((seeds, groups))[:, member]
    return values + rest * random.standard_normal((seeds, images)), member


def interval_of(counts, member, resamples=20_000):
    scores = intervals.resampled_scores({"a": counts}, member, resamples)["a"]
    return intervals.score_interval(scores, Groups.of(counts, member))


def test_mean_iou_is_that_of_the_bootstrap():
    counts = random_counts()
    expected = scores_of_counts(counts)["mean_iou"][..., 0]
    np.testing.assert_allclose(intervals.mean_iou(counts), expected, rtol=1e-15)
    assert np.isnan(intervals.mean_iou(np.zeros((3, 2))))


def test_a_resample_is_of_whole_groups_and_the_same_for_all_models_and_runs():
    counts = random_counts(seeds=2, images=6)
    member = np.array([0, 1, 0, 2, 1, 1])
    drawn = intervals.resampled_scores({"a": counts, "b": counts[::-1]}, member, 100, seed=3)
    np.testing.assert_array_equal(drawn["a"][1], drawn["b"][1][:, ::-1])
    random = np.random.default_rng(3)
    for row, weights in zip(drawn["a"][1], random.multinomial(3, [1 / 3] * 3, size=100), strict=True):
        picked = np.concatenate([np.flatnonzero(member == group) for group in np.repeat(np.arange(3), weights)])
        np.testing.assert_allclose(row, intervals.mean_iou(counts[:, picked].sum(axis=1)), rtol=1e-12)
    whole = intervals.mean_iou(counts.sum(axis=1))
    np.testing.assert_allclose(drawn["a"][0], whole, rtol=1e-12)


def test_effective_groups():
    truth = np.zeros((1, 5, 3, 3), int)
    truth[0, :, 0, 0] = 7  # all five images have class 0: groups of 2, 2, 1 images, squares .16 + .16 + .04
    truth[0, 1:3, 0, 1] = 4  # half in the group of images 0 and 1, half in that of 2 and 3: .25 + .25
    member = np.array([0, 0, 1, 1, 2])
    assert Groups.of(truth, member) == Groups(3, pytest.approx(1 / ((0.36 + 0.5) / 2)))
    assert Groups.of(truth[..., :1], np.arange(5)) == Groups(5, pytest.approx(5))
    truth[0, :4, 0] = 0
    assert Groups.of(truth, member) == Groups(3, 2.0)  # all in one group


def test_where_all_groups_are_alike_the_interval_is_students_over_seeds():
    """No group differs from another, so the variance is that of the runs: scipy's paired t test and Welch's."""
    random = np.random.default_rng(0)
    first = np.round(random.normal(0.70, 0.01, 6), 4)
    second = np.round(random.normal(0.69, 0.02, 6), 4)
    models = {"a": plain_mean(np.repeat(first[:, None], 12, 1)), "b": plain_mean(np.repeat(second[:, None], 12, 1))}
    scores = intervals.resampled_scores(models, np.arange(12), 200)
    for paired, test in (
        (True, stats.ttest_rel(first, second)),
        (False, stats.ttest_ind(first, second, equal_var=False)),
    ):
        found = intervals.difference_interval(scores["a"], scores["b"], Groups(12, 12.0), paired=paired)
        expected = test.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert found.p == pytest.approx(test.pvalue, rel=1e-6) and found.df == pytest.approx(test.df, rel=1e-6)


def test_one_run_has_the_interval_of_its_groups():
    values = layout(1, 40, 1, seed=1)[0]
    found = interval_of(plain_mean(values), np.arange(40))
    expected = stats.ttest_1samp(np.round(values[0], 4), 0).confidence_interval(0.95)
    assert found.df == pytest.approx(39)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-4)  # 20,000 resamples


def mean_squares(values, member):
    """statsmodels' mean squares of seeds crossed with images nested in groups, each group of equally many."""
    pandas = pytest.importorskip("pandas", reason=NEEDS_STATSMODELS)
    anova = pytest.importorskip("statsmodels.stats.anova", reason=NEEDS_STATSMODELS)
    ols = pytest.importorskip("statsmodels.formula.api", reason=NEEDS_STATSMODELS).ols
    seeds, images = values.shape
    inside = np.arange(images) % (images // (member.max() + 1))
    frame = pandas.DataFrame(
        {
            "y": values.ravel(),
            "seed": np.repeat(np.arange(seeds), images),
            "drive": np.tile(member, seeds),
            "inside": np.tile(inside, seeds),
        }
    )
    table = anova.anova_lm(ols("y ~ C(seed) * C(drive) + C(drive):C(inside)", frame).fit())
    return (table["sum_sq"] / table["df"]).to_dict()


def test_the_variance_is_that_of_statsmodels_analysis_of_variance():
    seeds, groups, inside = 4, 9, 3
    values, member = layout(seeds, groups, inside, seed=2)
    values = np.round(values, 4)
    squares = mean_squares(values, member)
    by_seed, by_group, both = (squares[name] for name in ("C(seed)", "C(drive)", "C(seed):C(drive)"))
    expected = (by_seed + by_group - both) / values.size
    found = interval_of(plain_mean(values), member)
    assert found.error**2 == pytest.approx(expected, rel=0.03)  # 20,000 resamples: 1 %
    # Satterthwaite: V^2 over the sum of (mean square / n)^2 / its degrees of freedom
    freedom = (seeds - 1, groups - 1, (seeds - 1) * (groups - 1))
    terms = sum((ms / values.size) ** 2 / df for ms, df in zip((by_seed, by_group, both), freedom, strict=True))
    assert found.df == pytest.approx(expected**2 / terms, rel=0.05)


def test_components_are_those_of_statsmodels_on_balanced_values():
    seeds, groups, inside = 5, 6, 4
    values, member = layout(seeds, groups, inside, seed=3, by_seed=0.03)
    squares = mean_squares(values, member)
    rest = squares["Residual"]
    both = (squares["C(seed):C(drive)"] - rest) / inside
    image = (squares["C(drive):C(inside)"] - rest) / seeds
    seed = (squares["C(seed)"] - squares["C(seed):C(drive)"]) / (groups * inside)
    group = (squares["C(drive)"] - squares["C(drive):C(inside)"] - squares["C(seed):C(drive)"] + rest) / (
        seeds * inside
    )
    assert min(rest, both, image, seed, group) > 0  # none is cut off at 0 in this draw
    found = variance.components(values, member)
    got = (found.seed_image, found.seed_group, found.image, found.seed, found.group)
    assert got == pytest.approx((rest, both, image, seed, group))
    assert found.imbalance == pytest.approx(1)
    # the variance of the mean is the one of the interval, before anything is cut off
    total = (squares["C(seed)"] + squares["C(drive)"] - squares["C(seed):C(drive)"]) / values.size
    assert found.variance()[0] == pytest.approx(total) == sum(found.parts().values())
    assert sum(found.shares().values()) == pytest.approx(1)
    assert found.shares()["seed"] == pytest.approx(seed / seeds / total)


def test_components_of_uneven_groups_are_right_on_average():
    truth = {"by_seed": 0.03, "by_group": 0.03, "by_image": 0.02, "both": 0.02, "rest": 0.01}
    sizes = np.array([1, 2, 3, 5, 8, 2, 1, 6, 12, 4, 2, 3])
    found = []
    for draw in range(400):
        values, _ = layout(6, 12, 12, seed=draw, **truth)
        keep = np.concatenate([12 * group + np.arange(size) for group, size in enumerate(sizes)])
        found.append(variance.components(values[:, keep], np.repeat(np.arange(12), sizes)))
    for name, part in (("seed", "by_seed"), ("group", "by_group"), ("image", "by_image"), ("seed_group", "both")):
        mean = np.mean([getattr(components, name) for components in found])
        assert mean == pytest.approx(truth[part] ** 2, rel=0.1), name  # 400 draws: 3 %
    assert np.mean([components.seed_image for components in found]) == pytest.approx(0.01**2, rel=0.03)
    assert found[0].imbalance == pytest.approx(12 * np.sum((sizes / sizes.sum()) ** 2))


def test_without_groups_images_and_their_groups_are_one():
    values, member = layout(4, 30, 1, seed=4)
    found = variance.components(values, member)
    assert found.image == found.seed_image == 0 and found.group > 0 and found.imbalance == 1


def test_linearised_values_average_to_the_score_and_are_its_slope():
    counts = random_counts()
    values = variance.linearised(counts)
    whole = intervals.mean_iou(counts.sum(axis=1))
    np.testing.assert_allclose(values.mean(axis=1), whole, rtol=1e-12)
    more = 1e-6
    for image in range(counts.shape[1]):  # a little more of one image: the mean moves towards its value
        weights = np.ones(counts.shape[1])
        weights[image] += more
        moved = intervals.mean_iou(np.einsum("i,sikc->skc", weights, counts))
        slope = (moved - whole) / more * counts.shape[1]
        np.testing.assert_allclose(slope, values[:, image] - whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("runs", [2, 5, 6])
def test_sign_flips_of_paired_seeds(runs):
    """All gaps positive: of 2^n sign patterns only the given one and its mirror image are as far from 0."""
    gaps = 0.01 + 0.001 * np.arange(runs)
    found = significance.seed_test(0.7 + gaps, np.full(runs, 0.7), paired=True)
    assert found.p == found.smallest_p == 2 / 2**runs
    assert (found.smallest_p < 0.05) == (runs >= 6)


def test_one_gap_against_the_others_by_counting():
    # gaps 1, 2, 3, 4, 5, -1: sums as large as 14 are 16 (all positive) and 14 (one of the 1s negative: two ways), so
    # p = 2 * 3 / 64
    found = significance.seed_test(np.array([1.0, 2, 3, 4, 5, -1]), np.zeros(6), paired=True)
    assert found.p == 6 / 64


def test_unpaired_seeds_are_dealt_out_anew():
    found = significance.seed_test(np.array([5.0, 6, 7, 8]), np.array([1.0, 2, 3, 4]), paired=False)
    assert found.p == found.smallest_p == 2 / math.comb(8, 4) < 0.05
    three = significance.seed_test(np.array([6.0, 7, 8]), np.array([1.0, 2, 3]), paired=False)
    assert three.p == 2 / 20
    single = significance.seed_test(np.array([6.0]), np.array([1.0]), paired=False)
    assert single.p == single.smallest_p == 1


def test_superiority_is_the_binomial_of_the_pairs():
    first = np.array([3.0, 4, 5, 6, 1, 9])
    second = np.array([2.0, 3, 4, 5, 2, 8])
    found = significance.superiority(first, second, paired=True)
    expected = stats.binomtest(5, 6).proportion_ci(0.95, method="exact")
    assert found.value == 5 / 6 and (found.low, found.high) == pytest.approx(tuple(expected))
    assert not found.beyond_chance and not found.meaningful  # the lower end of 5 in 6 is .36
    all_six = significance.superiority(first, first - 1, paired=True)
    assert all_six.low == pytest.approx(0.025 ** (1 / 6)) and all_six.high == 1 and all_six.meaningful
    five = significance.superiority(first[:5], first[:5] - 1, paired=True)
    assert five.low == pytest.approx(0.025**0.2) and not five.beyond_chance
    tied = significance.superiority(first, first, paired=True)
    assert tied.value == 0.5 and tied.low == pytest.approx(1 - tied.high)


def test_superiority_of_unpaired_seeds_is_mann_whitneys():
    first = np.array([3.0, 4, 5, 6])
    second = np.array([2.0, 3, 4.5])
    statistic = stats.mannwhitneyu(first, second).statistic
    found = significance.superiority(first, second, paired=False)
    assert found.value == pytest.approx(statistic / 12)
    mirrored = significance.superiority(second, first, paired=False)
    assert mirrored.value == pytest.approx(1 - found.value) and mirrored.low == pytest.approx(1 - found.high)


@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_of_superiority_holds_the_truth(paired):
    """Runs of both models are normal, .01 apart with .01 of spread: P = Phi(1 / sqrt 2) = .760."""
    truth = stats.norm.cdf(1 / math.sqrt(2))
    random = np.random.default_rng(5)
    held = 0
    for _ in range(1000):
        found = significance.superiority(random.normal(0.01, 0.01, 8), random.normal(0, 0.01, 8), paired=paired)
        held += found.low <= truth <= found.high
    assert held >= 950


def test_holm_by_hand_and_by_statsmodels():
    # sorted: .01 * 4, .02 * 3, .03 * 2 (below .06, so .06), .5 * 1
    assert significance.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason=NEEDS_STATSMODELS)
    p_values = np.random.default_rng(6).random(15) ** 3
    np.testing.assert_allclose(significance.holm(p_values), multitest.multipletests(p_values, method="holm")[1])


def test_equivalence_is_statsmodels_two_one_sided_tests():
    weightstats = pytest.importorskip("statsmodels.stats.weightstats", reason=NEEDS_STATSMODELS)
    gaps = np.random.default_rng(7).normal(0.002, 0.006, 8)
    found = Estimate(gaps.mean(), stats.sem(gaps), 7)
    assert found.p_equivalent(0.01) == pytest.approx(weightstats.ttost_paired(gaps, np.zeros(8), -0.01, 0.01)[0])
    # small exactly where the 90 % interval lies inside
    narrow = Estimate(found.value, found.error, 7, level=0.9)
    edge = max(-narrow.low, narrow.high)
    assert found.p_equivalent(edge) == pytest.approx(0.05)


def test_an_estimate_without_spread_is_certain():
    same = Estimate(0.0, 0.0, 5)
    assert same.p == 1 and same.low == same.high == 0 and same.p_equivalent(0.01) == 0
    assert Estimate(0.02, 0.0, 5).p == 0 and Estimate(0.02, 0.0, 5).p_equivalent(0.01) == 1


def of_seeds_alone(deviation, seeds=6, groups=20):
    return variance.Components(deviation**2, 0.0, 0.0, 0.0, 0.0, seeds, groups, 8 * groups, 1.0)


def test_power_of_seeds_alone_is_statsmodels():
    statsmodels_power = pytest.importorskip("statsmodels.stats.power", reason=NEEDS_STATSMODELS)
    for seeds in (3, 6, 12):
        expected = statsmodels_power.TTestPower().power(0.01 / 0.008, seeds, 0.05)
        assert power.power(of_seeds_alone(0.008), seeds, 20) == pytest.approx(expected, rel=1e-4)
        # unpaired: both models' runs, each with half of the variance of a difference
        expected = statsmodels_power.TTestIndPower().power(0.01 / (0.008 / 2**0.5), seeds, 0.05)
        assert power.power(of_seeds_alone(0.008), seeds, 20, paired=False) == pytest.approx(expected, rel=1e-4)
    assert power.power(of_seeds_alone(0.0), 3, 20) == 1
    assert power.power(of_seeds_alone(0.00005), 3, 20) == pytest.approx(1)  # scipy's noncentral t gives nan


def test_a_budget_reaches_the_power_and_one_less_does_not():
    found = variance.Components(0.0001, 0.0009, 0.001, 0.0004, 0.0009, 6, 12, 96, 1.3)
    needs = power.budget(found)
    assert needs.power == power.power(found, 6, 12) < 0.8
    # with 30 seeds the groups are just enough, and so are the seeds with those groups
    assert power.power(found, 30, needs.needed_groups) >= 0.8 > power.power(found, 30, needs.needed_groups - 1)
    enough = power.power(found, needs.needed_seeds, needs.needed_groups)
    assert enough >= 0.8 > power.power(found, needs.needed_seeds - 1, needs.needed_groups)
    assert str(needs) == (
        "To see a difference of 0.01 with a probability of 80 %, "
        f"you need {needs.needed_seeds} seeds per model and {needs.needed_groups} groups; "
        f"you have 6 and 12, which see it with {100 * needs.power:.0f} %."
    )
    # among six pairs each is asked about at 5 % / 6, which Holm asks of the pair with the smallest p
    corrected = 1 - 0.05 / 6
    among = power.budget(found, pairs=6)
    assert among.power == power.power(found, 6, 12, level=corrected) < needs.power
    enough = power.power(found, among.needed_seeds, among.needed_groups, level=corrected)
    assert enough >= 0.8 > power.power(found, among.needed_seeds - 1, among.needed_groups, level=corrected)
    assert str(among).startswith(
        "To see a difference of 0.01 among 6 pairs of models with a probability of 80 %, you need "
    )
    # seeds alone: no more groups than there are, and t's 5 % and 80 % for .01 / .008 from tables: 8 seeds
    alone = power.budget(of_seeds_alone(0.008))
    assert (alone.needed_seeds, alone.needed_groups) == (8, 20)
    # a study that sees it already still gets what a verdict asks for
    assert power.budget(of_seeds_alone(0.0001, seeds=3, groups=4)).needed_groups == power.FEWEST_GROUPS
    # where the seeds vary most, 30 are too few with any groups: z's 1.96 + .84 for .01 / .05 gives 196, t's some more
    many = power.budget(of_seeds_alone(0.05))
    assert many.needed_groups == 20 and 196 <= many.needed_seeds <= 200
    hopeless = power.budget(of_seeds_alone(3.0))
    assert hopeless.needed_seeds is None and "more than 1,000 seeds per model and 100,000 groups" in str(hopeless)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: intervals.check_models({}), "at least one model"),
        (lambda: intervals.check_models({"a": random_counts()[:, :, :2]}), "seeds, images, 3, classes"),
        (lambda: intervals.check_models({"a": random_counts() / 2}), "whole numbers"),
        (lambda: intervals.check_models({"a": random_counts(), "b": random_counts(seed=1)}), "truth of b differs"),
        (lambda: intervals.check_models({"a": random_counts(), "b": random_counts(images=8)}), "truth of b differs"),
        (lambda: intervals.check_models({"a": random_counts()[:, :, ::-1]}), "truth of a differs|Right pixels"),
        (lambda: intervals.check_models({"a": random_counts()}, list("abc")), "7 images and 3"),
        (lambda: intervals.check_models({"a": random_counts()}, ["x"] * 7), "two groups or more"),
        (lambda: interval_of(random_counts(), np.arange(7), 10), "at least 100"),
        (lambda: variance.components(np.zeros((1, 4)), np.arange(4)), "two seeds"),
        (lambda: variance.components(np.zeros((2, 4)), ["x"] * 4), "2 and 1"),
        (lambda: variance.components(np.zeros((2, 4)), np.arange(5)), "4 images and 5"),
        (lambda: significance.seed_test(np.zeros(3), np.zeros(4), paired=True), "3 and 4 runs"),
        (lambda: significance.superiority(np.zeros(3), np.zeros(4), paired=True), "3 and 4 runs"),
        (lambda: power.power(of_seeds_alone(0.1), 1, 9), "two seeds"),
        (lambda: power.power(of_seeds_alone(0.1), 3, 9, difference=-0.01), "above 0"),
        (lambda: power.budget(of_seeds_alone(0.1), wanted=80), "between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
