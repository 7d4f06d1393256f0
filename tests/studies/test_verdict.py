"""The sentences of a study: they say what their numbers say, whatever the rounding."""

import functools
import re

import numpy as np
import pytest

from kseg.io.errors import InputError
from kseg.studies.statistics import Comparison, compare
from kseg.studies.statistics.intervals import Estimate
from kseg.studies.statistics.significance import Superiority, seed_test
from kseg.studies.statistics.verdict import BETTER, EQUAL, OPEN

cached_seed_test = functools.cache(
    lambda runs, paired: seed_test(np.arange(1.0, runs + 1), np.zeros(runs), paired=paired)
)


def comparison(second=0.7, value=0.02, error=0.005, df=8.0, *, runs=6, groups=20, p=None, paired=True, unit="groups"):
    """A Comparison of these numbers alone."""
    difference = Estimate(value, error, df)
    return Comparison(
        first="unet",
        second="fcn",
        first_score=Estimate(second + value, 0.01, 8.0),
        second_score=Estimate(second, 0.01, 8.0),
        difference=difference,
        p=difference.p if p is None else p,
        p_equivalent=difference.p_equivalent(0.01),
        equivalence=0.01,
        seed_test=cached_seed_test(runs, paired),
        superiority=Superiority(1.0, 0.54, 1.0),
        shares=None,
        budget=None,
        groups=groups,
        unit=unit,
    )


def test_better():
    # t of 8 degrees of freedom: 2.3060 * .005 = .01153
    found = comparison()
    assert found.result == BETTER
    assert found.verdict == (
        "unet is better than fcn: mean IoU 0.7200 against 0.7000, "
        "difference +0.0200 (95 % interval +0.0085 to +0.0315)."
    )


def test_practically_equal_even_where_the_difference_is_not_chance():
    # the 90 % interval, 1.8595 * .001: within .01 and above 0
    found = comparison(value=0.004, error=0.001)
    assert found.p < 0.05 and found.result == EQUAL
    assert found.verdict == (
        "unet and fcn are practically equal: mean IoU 0.7040 against 0.7000, and the difference +0.0040 "
        "(90 % interval +0.0021 to +0.0059) lies within -0.01 to +0.01."
    )
    same = comparison(value=0.0, error=0.0)
    assert same.result == EQUAL and "difference +0.0000 (90 % interval +0.0000 to +0.0000)" in same.verdict


@pytest.mark.parametrize(
    ("numbers", "reasons"),
    [
        ({"error": 0.01}, "the interval contains 0."),
        ({"runs": 3}, "3 seeds per model are too few (6 are needed)."),
        ({"runs": 5}, "5 seeds per model are too few (6 are needed)."),
        ({"runs": 1}, "1 seed per model is too few (6 are needed)."),
        ({"runs": 3, "paired": False}, "3 seeds per model are too few (4 are needed)."),
        ({"groups": 3}, "3 groups are too few (10 are needed)."),
        ({"groups": 9, "unit": "images"}, "9 images are too few (10 are needed)."),
        (
            {"error": 0.01, "runs": 3, "groups": 3},
            "the interval contains 0, and 3 seeds per model are too few (6 are needed), "
            "and 3 groups are too few (10 are needed).",
        ),
        # to two digits it would look like the bound
        ({"p": 0.0512}, "the interval excludes 0, but over all pairs of models p is 0.051 (Holm)."),
        ({"p": 0.1234}, "the interval excludes 0, but over all pairs of models p is 0.12 (Holm)."),
    ],
)
def test_not_settled_says_why(numbers, reasons):
    found = comparison(**numbers)
    assert found.result == OPEN
    assert found.verdict.startswith("Not settled whether unet or fcn is better: mean IoU 0.7200 against 0.7000")
    assert found.verdict.endswith(f"); {reasons}")


def test_too_few_seeds_cannot_settle_equality_either():
    assert comparison(value=0.001, error=0.0001, runs=3).result == OPEN
    assert comparison(value=0.001, error=0.0001, groups=9).result == OPEN
    assert comparison(runs=4, paired=False).result == BETTER  # 2 / 70


@pytest.mark.parametrize(
    ("second", "value", "error"),
    [
        (0.70004, 0.00002, 0.000001),  # the scores round to one number, the difference to 0
        (0.69995, 0.0001, 0.00003),  # shown to four digits the scores would be .7000 and .7000 or .7001
        (0.7, 0.0115305, 0.005),  # the lower end, .0000005, is no 0
        (0.7, 0.0115295, 0.005),  # -.0000005
        (0.7, 0.00999999, 1e-9),  # just inside of .01
        (0.7, 0.01000001, 1e-9),  # just outside
        (0.7, 0.0, 0.004),
        (1 / 3, 1 / 30, 1e-4),
    ],
)
def test_what_is_shown_agrees(second, value, error):
    agrees(comparison(second, value, error))


def test_what_is_shown_agrees_for_random_numbers():
    random = np.random.default_rng(0)
    results = set()
    for _ in range(1000):
        value = 10 ** random.uniform(-6, -1.3)
        found = comparison(random.uniform(0.2, 0.8), value, value * random.uniform(0.05, 1.5))
        agrees(found)
        results.add(found.result)
    assert results == {BETTER, EQUAL, OPEN}


@pytest.mark.parametrize(("second", "value"), [(0.26183424, 0.17853136), (0.6, 0.0412345), (0.12345, 0.23455)])
def test_four_decimals_are_enough_away_from_the_bounds(second, value):
    """Rounded one by one, the first two differ from the difference of what is shown in the last place."""
    found = comparison(second, value, 0.003)
    agrees(found)
    assert found.digits == 4 and all(len(number) == 6 for number in re.findall(r"\d\.\d+", found.verdict))


def agrees(found):
    """Read the sentence's numbers back: the difference is that of the scores, and they mean what the words say."""
    text = found.verdict
    first, second = map(float, re.search(r"mean IoU (\S+) against (\S+?),", text).groups())
    shown = re.search(r"difference (\S+) \((\d+) % interval (\S+) to (\S+)\)", text)
    change, level, low, high = map(float, shown.groups())
    assert change == pytest.approx(first - second, abs=1e-9)
    assert change == pytest.approx(found.difference.value, abs=1.01e-4)  # both scores are rounded
    assert (change > 0) == (found.difference.value > 0) and change >= 0 and low <= change <= high
    if found.result == BETTER:
        assert level == 95 and low > 0
    elif found.result == EQUAL:
        assert level == 90 and -0.01 < low <= high < 0.01
    else:
        assert level == 95 and ("the interval contains 0" in text) == (low <= 0 <= high)


def study(change, seeds=8, groups=16, inside=3, seed=0):
    """Counts of models a, b, c of two classes: b is `change` below a for every run, c is a with other noise."""
    random = np.random.default_rng(seed)
    images = groups * inside
    truth = random.integers(4000, 9000, (images, 2))
    group = np.repeat(random.normal(0, 0.05, groups), inside)[:, None]

    def model(shift):
        share = (
            0.7 + shift + group + random.normal(0, 0.004, (seeds, 1, 1)) + random.normal(0, 0.01, (seeds, images, 2))
        )
        right = np.round(truth * share).astype(int)
        return np.stack([np.broadcast_to(truth, right.shape), right, right], axis=2)

    return {"a": model(0), "b": model(-change), "c": model(0)}, np.repeat([f"drive {i}" for i in range(groups)], inside)


def test_a_study_of_three_models():
    models, groups = study(0.03)
    found = compare(models, groups)
    assert [{pair.first, pair.second} for pair in found] == [{"a", "b"}, {"a", "c"}, {"b", "c"}]
    assert [pair.result for pair in found] == [BETTER, EQUAL, BETTER]
    assert found[0].first == "a" and found[2].first == "c"  # the better one first, so no difference is below 0
    for pair in found:
        agrees(pair)
        assert pair.groups == 16 and pair.difference.value >= 0
        assert pair.first_score.value - pair.second_score.value == pytest.approx(pair.difference.value)
        assert sum(pair.shares.values()) == pytest.approx(1) and pair.shares["seed"] > 0.3
    # 8 of 8 runs are better: 2 / 2^8, and the interval of P is from .025^(1/8)
    assert found[0].seed_test.p == 2 / 256 and found[0].superiority.low == pytest.approx(0.025**0.125)
    # Holm over three pairs: the largest p stands, the smallest is three times its own
    alone = [pair.difference.p for pair in found]
    assert min(pair.p for pair in found) == pytest.approx(3 * min(alone))
    assert max(pair.p for pair in found) == pytest.approx(max(alone))
    assert compare(models, groups) == found  # the same draws


def test_the_same_model_twice_is_equal_to_itself():
    models, groups = study(0.0)
    (found,) = compare({"a": models["a"], "again": models["a"]}, groups)
    assert found.difference.error == 0 and found.result == EQUAL and found.p == 1 and found.superiority.value == 0.5
    assert found.shares == dict.fromkeys(found.shares, 0.0)


def test_one_run_a_model_settles_nothing():
    models, groups = study(0.03, seeds=1)
    found = compare(models, groups)[0]
    assert found.result == OPEN and found.shares is None and found.budget is None
    assert "1 seed per model is too few (6 are needed)" in found.verdict


def test_unpaired_models_may_have_other_numbers_of_runs():
    models, groups = study(0.03)
    fewer = {"a": models["a"], "b": models["b"][:5]}
    (found,) = compare(fewer, groups, paired=False)
    assert found.result == BETTER and found.seed_test.runs == (8, 5) and found.budget.seeds == 5
    with pytest.raises(InputError, match="8 and 5 runs"):
        compare(fewer, groups)


def test_the_budget_knows_how_many_pairs_are_compared():
    models, groups = study(0.03)
    two = {name: models[name] for name in "ab"}
    (alone,) = compare(two, groups)
    assert alone.budget.pairs == 1 and "among" not in str(alone.budget)
    among = next(pair for pair in compare(models, groups) if {pair.first, pair.second} == {"a", "b"})
    assert len(models) == among.budget.pairs == 3 and among.budget.power < alone.budget.power


def test_without_groups_images_are_drawn():
    models, _ = study(0.03)
    found = compare(models)[0]
    assert (found.groups, found.unit) == (48, "images") and "48, which see it" in str(found.budget)


@pytest.mark.parametrize(
    ("models", "keywords", "message"),
    [
        (["a"], {}, "two models or more"),
        (["a", "b"], {"equivalence": 0.0}, "equivalence"),
        (["a", "b"], {"level": 95}, "level"),
    ],
)
def test_what_cannot_be_compared_is_refused(models, keywords, message):
    counts, groups = study(0.0)
    with pytest.raises(InputError, match=message):
        compare({name: counts[name] for name in models}, groups, **keywords)


def trained_and_fixed(seeds=6, images=24):
    """A trained model whose runs and images vary, and two fixed ones."""
    random = np.random.default_rng(3)
    counts = np.full((seeds, images, 3, 2), 100)
    counts[:, :, 1] = random.integers(60, 90, (seeds, images, 1)) + random.integers(0, 5, (seeds, 1, 1))
    other = np.full((1, images, 3, 2), 100)
    other[:, :, 1] = random.integers(50, 85, (1, images, 1))
    third = other.copy()
    third[:, :, 1] += 10
    return {"net": counts, "rival": other, "third": third}


def by_names(found):
    return {frozenset((pair.first, pair.second)): pair for pair in found}


def test_a_fixed_model_has_no_seeds_of_its_own():
    """Against six runs it is as if the one run stood beside each of them, paired or not: its own variance is 0."""
    models = trained_and_fixed()
    expected = compare({"net": models["net"], "rival": np.repeat(models["rival"], 6, axis=0)}, paired=True)[0]
    for paired in (True, False):
        found = by_names(compare(models, paired=paired, fixed=("rival", "third")))[frozenset(("net", "rival"))]
        assert found.difference == expected.difference and found.shares == expected.shares
        assert (found.seed_test, found.superiority) == (expected.seed_test, expected.superiority)
        assert found.seed_test.smallest_p == 2 / 64 and found.fixed == ("rival",)
    # The unpaired formula takes the other model's seeds alone too.
    unpaired = compare({"net": models["net"], "rival": models["rival"]}, paired=False)[0]
    assert unpaired.difference.error == pytest.approx(found.difference.error)


def test_two_fixed_models_are_compared_over_groups_alone():
    models = trained_and_fixed()
    (found,) = compare({name: models[name] for name in ("rival", "third")}, fixed=("rival", "third"))
    assert found.seed_test is None and found.superiority is None and found.shares is None and found.budget is None
    # Ten more of 100 pixels in every image, 24 groups: settled, with one run each.
    assert found.result == BETTER and found.verdict.startswith("third is better than rival: ")
    (few,) = compare({name: models[name][:, :6] for name in ("rival", "third")}, fixed=("rival", "third"))
    assert few.result == OPEN and few.verdict.endswith("; 6 images are too few (10 are needed).")
    # Were they trained, one seed would be too few.
    (trained,) = compare({name: models[name] for name in ("rival", "third")})
    assert trained.result == OPEN and "1 seed per model is too few" in trained.verdict


def test_too_few_seeds_are_those_of_the_trained_model():
    models = trained_and_fixed(seeds=3)
    found = by_names(compare(models, fixed=("rival", "third")))[frozenset(("net", "rival"))]
    assert "3 seeds of net are too few (6 are needed)" in found.verdict


def test_a_fixed_model_has_one_run():
    models = trained_and_fixed()
    with pytest.raises(InputError, match="A fixed model has one run, but net has 6"):
        compare(models, fixed=("net",))
    with pytest.raises(InputError, match="but other has 0"):
        compare(models, fixed=("other",))
