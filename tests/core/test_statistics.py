"""Statistics against brute force, closed forms, scipy and simulation."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from compressbench.core.statistics import (
    largest_within,
    log_ratio_interval,
    mcnemar_p,
    mean_interval,
    mean_interval_from,
    median,
    paired_proportion_interval,
    proportion_interval,
    quantile_ranks,
    quantile_type_8,
    smallest_count_for,
    t_quantile,
)


def binomial_at_most(k: int, n: int, p: float) -> float:
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


@pytest.mark.parametrize(("probability", "count"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368)])
def test_the_smallest_counts_are_the_published_ones(probability: float, count: int) -> None:
    assert smallest_count_for(probability) == count
    assert smallest_count_for(1 - probability) == count
    assert quantile_ranks(count - 1, probability) is None


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.95])
def test_ranks_are_the_tightest_whose_tails_brute_force_allows(probability: float) -> None:
    for count in (6, 7, 20, 36, 60, 72, 100, 150):
        below = [binomial_at_most(k, count, probability) for k in range(count)]
        lows = [low for low in range(1, count + 1) if below[low - 1] <= 0.025]
        highs = [high for high in range(1, count + 1) if 1 - below[high - 1] <= 0.025]
        expected = (max(lows), min(highs)) if lows and highs else None
        assert quantile_ranks(count, probability) == expected, count


@pytest.mark.parametrize("probability", [0.01, 0.5, 0.99, 0.999])
@pytest.mark.parametrize("tail", [0.005, 0.01, 0.025])
def test_the_largest_count_within_a_tail_is_scipys(probability: float, tail: float) -> None:
    for count in (1, 7, 459, 662, 3000, 60_000):
        found = largest_within(count, probability, tail)
        assert stats.binom.cdf(found, count, probability) <= tail or found == -1
        assert stats.binom.cdf(found + 1, count, probability) > tail


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=120), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_a_quantile_of_type_8_is_numpys(values: list[float], p: float) -> None:
    expected = float(np.quantile(values, p, method="median_unbiased"))
    assert quantile_type_8(sorted(values), p) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_the_median_is_that_of_the_standard_library(values: list[int]) -> None:
    assert median(values) == statistics.median(values)


def test_the_median_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        median([])


def test_the_interval_of_a_ratio_covers_in_95_percent_of_drifting_pairs() -> None:
    draw = random.Random(11)
    hits = 0
    for _ in range(1500):
        drift = [math.exp(draw.gauss(0, 0.5)) for _ in range(10)]
        baseline = [0.01 * each * math.exp(draw.gauss(0, 0.02)) for each in drift]
        candidate = [0.013 * each * math.exp(draw.gauss(0, 0.02)) for each in drift]
        found = log_ratio_interval(baseline, candidate)
        hits += found.low <= 1.3 <= found.high
    assert 0.93 <= hits / 1500 <= 0.97


def test_a_ratio_is_the_geometric_mean_and_its_inverse_is_the_inverse() -> None:
    baseline, candidate = [1.0, 2.0, 4.0], [2.0, 2.0, 16.0]
    found = log_ratio_interval(baseline, candidate)
    assert found.value == pytest.approx((2 * 1 * 4) ** (1 / 3))
    turned = log_ratio_interval(candidate, baseline)
    assert turned == pytest.approx((1 / found.value, 1 / found.high, 1 / found.low))
    with pytest.raises(ValueError, match=r"shorter|longer"):
        log_ratio_interval([1.0, 2.0], [1.0])


@pytest.mark.parametrize("degrees_of_freedom", [1, 2, 3, 4, 9, 19, 39, 100, 3079, 200_000])
def test_t_quantiles_are_scipys(degrees_of_freedom: int) -> None:
    for probability in (0.001, 0.025, 0.05, 0.4, 0.5, 0.6, 0.9, 0.975, 0.995, 0.9999):
        expected = float(stats.t.ppf(probability, degrees_of_freedom))
        assert t_quantile(probability, degrees_of_freedom) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_interval_of_a_mean_is_scipys() -> None:
    draw = random.Random(3)
    values = [draw.gauss(5, 2) for _ in range(12)]
    expected = stats.t.interval(0.95, 11, loc=np.mean(values), scale=stats.sem(values))
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx(expected)
    assert mean_interval_from(float(np.mean(values)), float(np.std(values, ddof=1)), 12) == pytest.approx(found)
    wide = mean_interval(values, confidence=0.99)
    assert wide.low < found.low < found.high < wide.high


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 2 values"):
        mean_interval([1.0])


def test_mcnemar_of_5_against_15_is_the_published_one() -> None:
    assert mcnemar_p(5, 15) == mcnemar_p(15, 5) == 0.04138946533203125


def test_mcnemar_is_twice_the_smaller_tail_of_all_splits() -> None:
    for harmful in range(30):
        for beneficial in range(30):
            n, k = harmful + beneficial, min(harmful, beneficial)
            expected = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
            assert mcnemar_p(harmful, beneficial) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("harmful", "beneficial"), [(1000, 1100), (20_000, 20_500), (5000, 5000), (300, 900), (0, 1020), (450, 1200)]
)
def test_mcnemar_of_many_is_scipys(harmful: int, beneficial: int) -> None:
    expected = stats.binomtest(harmful, harmful + beneficial, 0.5).pvalue
    assert mcnemar_p(harmful, beneficial) == pytest.approx(expected, rel=1e-7, abs=0)
    assert expected > 0


@pytest.mark.parametrize(("harmful", "beneficial", "count"), [(5, 15, 100), (0, 0, 50), (3, 0, 10), (40, 38, 3080)])
def test_the_interval_of_a_paired_difference_is_agresti_and_mins(harmful: int, beneficial: int, count: int) -> None:
    total, b, c = count + 2, beneficial + 0.5, harmful + 0.5
    centre = (b - c) / total
    error = math.sqrt(((b + c) - (b - c) ** 2 / total) / total**2)
    found = paired_proportion_interval(harmful, beneficial, count)
    z = float(stats.norm.ppf(0.975))
    assert found.value == (beneficial - harmful) / count
    assert found.low == pytest.approx(max(-1, min(centre - z * error, found.value)), abs=1e-12)
    assert found.high == pytest.approx(min(1, max(centre + z * error, found.value)), abs=1e-12)


def test_the_interval_of_a_paired_difference_covers_in_95_percent() -> None:
    draw = random.Random(5)
    count, harm, benefit, hits = 200, 0.06, 0.03, 0
    for _ in range(1500):
        fates = [draw.random() for _ in range(count)]
        harmful = sum(fate < harm for fate in fates)
        beneficial = sum(harm <= fate < harm + benefit for fate in fates)
        found = paired_proportion_interval(harmful, beneficial, count)
        hits += found.low <= benefit - harm <= found.high
    assert 0.93 <= hits / 1500 <= 0.98


@given(st.integers(1, 5000), st.data())
@settings(max_examples=60, deadline=None)
def test_a_proportion_has_wilsons_interval(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count))
    found = proportion_interval(hits / count, count)
    expected = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert found.low == pytest.approx(min(expected.low, hits / count), abs=1e-9)
    assert found.high == pytest.approx(max(expected.high, hits / count), abs=1e-9)
    # the bounds are the proportions whose score test is just rejected
    for bound in (found.low, found.high):
        if 1e-9 < bound < 1 - 1e-9 and bound != found.value:
            z = (hits / count - bound) / math.sqrt(bound * (1 - bound) / count)
            assert abs(z) == pytest.approx(1.959964, rel=1e-4)
