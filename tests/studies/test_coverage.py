"""Simulated studies with known truth: 95 % intervals hold it, A/A studies call few differences, power is kept.

The short form has few studies and wide bounds: of 400 studies a share of 95 % has a standard error of 1.1 %. The slow
one has 2,000, others than those of the table in docs/explanation/statistics.md, and the bounds that the page promises.
"""

import pytest
from study_coverage import PLAIN, POPULATIONS, predicted_power, same_model, simulate


@pytest.mark.parametrize(("seeds", "groups", "paired"), [(6, 20, True), (6, 20, False), (12, 10, True)])
def test_few_studies(seeds, groups, paired):
    found = simulate(PLAIN, seeds, groups, 0.01, paired=paired, studies=400)
    assert 0.92 < found["score"] < 0.98 and 0.92 < found["difference"] < 0.98
    # of 400, a share of one half has a standard error of 2.5 %
    assert found["found"] == pytest.approx(predicted_power(PLAIN, seeds, groups, 0.01, paired=paired), abs=0.08)
    assert simulate(same_model(PLAIN), seeds, groups, paired=paired, studies=200)["called"] <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize(("seeds", "groups"), [(3, 20), (6, 10), (6, 20), (6, 60), (12, 20)])
def test_many_studies(name, paired, seeds, groups):
    population = POPULATIONS[name]
    found = simulate(population, seeds, groups, 0.01, paired=paired, seed=11)
    assert 0.93 <= found["difference"] <= 0.97
    if name == "plain":
        assert 0.93 <= found["score"] <= 0.97
    difference = found["found"] - predicted_power(population, seeds, groups, 0.01, paired=paired)
    assert abs(difference) < (0.05 if name == "plain" else 0.07)
    assert simulate(same_model(population), seeds, groups, paired=paired, seed=12)["called"] <= 0.07
