"""Quantiles that the number of values supports: published counts, brute force, numpy, scipy and simulation."""

from __future__ import annotations

import math
import random
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from compressbench.core.autocorrelation import batch_edges, batch_spread
from compressbench.core.quantiles import (
    QuantileEstimate,
    clustering,
    num_adjacent,
    smallest_count_for_bound,
    summarize_quantile,
    summarize_quantiles,
)
from compressbench.core.statistics import quantile_ranks, smallest_count_for


def shuffled(count: int, seed: int = 0) -> list[int]:
    """1 ... count in an order in which no quantile's clustering is seen."""
    values = list(range(1, count + 1))
    for attempt in range(100):
        random.Random(seed + attempt).shuffle(values)
        if all(found.num_effective == count for found in summarize_quantiles(values, (0.5, 0.95, 0.99))):
            return values
    raise AssertionError("no such order")


@pytest.mark.parametrize(
    ("probability", "bounds_99", "bound_95", "two_sided_95", "two_sided_99"),
    [
        (0.5, (11, 22, 35), 8, 6, 8),
        (0.9, (64, 127, 197), 46, 36, 51),
        (0.95, (130, 259, 398), 93, 72, 104),
        (0.99, (662, 1307, 2010), 473, 368, 528),
        (0.999, (6636, 13105, 20140), 4742, 3688, 5296),
    ],
)
def test_the_counts_are_those_of_the_protocol_and_of_mlperf(
    probability: float, bounds_99: tuple[int, ...], bound_95: int, two_sided_95: int, two_sided_99: int
) -> None:
    assert tuple(smallest_count_for_bound(probability, above) for above in (1, 5, 10)) == bounds_99
    assert smallest_count_for_bound(probability, 1, confidence=0.95) == bound_95
    assert (smallest_count_for(probability), smallest_count_for(probability, 0.99)) == (two_sided_95, two_sided_99)


@pytest.mark.parametrize("probability", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("num_above", [0, 1, 3])
def test_the_smallest_count_for_a_bound_is_the_first_that_scipy_accepts(probability: float, num_above: int) -> None:
    counts = range(num_above + 1, 3000)
    expected = next(count for count in counts if stats.binom.cdf(num_above, count, 1 - probability) <= 0.01)
    assert smallest_count_for_bound(probability, num_above) == expected


@pytest.mark.parametrize(
    ("count", "is_given", "rank_of_bound"), [(367, False, None), (368, True, None), (458, True, None), (459, True, 459),
     (661, True, 661), (662, True, 661)],
)  # fmt: skip
def test_p99_needs_368_independent_values_and_its_bound_459(
    count: int, is_given: bool, rank_of_bound: int | None
) -> None:
    found = summarize_quantile(shuffled(count), 0.99)
    assert (found.value is not None, found.low is not None, found.high is not None) == (is_given,) * 3
    assert (found.reason == "") == is_given
    assert found.upper_bound == rank_of_bound
    assert (found.num_values, found.num_effective, found.needed) == (count, count, 368)


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("count", [110, 400, 1000])
def test_independent_values_have_the_order_statistics_of_binomial_ranks(probability: float, count: int) -> None:
    values = shuffled(count)
    found = summarize_quantile(values, probability)
    # 1 ... count: an order statistic is its rank
    assert (found.low, found.high) == quantile_ranks(count, probability)
    assert found.value == pytest.approx(float(np.quantile(values, probability, method="median_unbiased")))
    allowed = max(above for above in range(count) if stats.binom.cdf(above, count, 1 - probability) <= 0.01)
    assert found.upper_bound == count - allowed
    assert not found.is_autocorrelated


def test_a_refusal_says_what_is_known_what_was_got_and_what_is_needed() -> None:
    found = summarize_quantile(shuffled(120), 0.99, lambda value: f"{value / 10:g} ms")
    assert found[:4] == (None, None, None, None)
    assert found.reason == (
        "at least 11.6 ms with 97.5 % confidence (the largest of 120 is 12 ms): "
        "120 calls are too few for p99, which needs 368"
    )
    assert summarize_quantile([1.0, 2.0, 3.0], 0.5, what="gaps").reason == "3 gaps are too few for p50, which needs 6"
    assert summarize_quantile([], 0.99).reason == "0 calls are too few for p99, which needs 368"


def test_a_refusal_for_clusters_says_how_many_calls_like_these_would_do() -> None:
    values = [float(index // 20 % 7) + index / 1000 for index in range(400)]
    found = summarize_quantile(values, 0.95)
    assert found.value is None
    assert found.num_effective < 72 < found.num_values == 400
    match = re.search(
        r"400 calls, worth (\d+) independent ones, are too few for p95, which needs 72 independent ones: about (\d+)",
        found.reason,
    )
    assert match is not None
    assert int(match[1]) == found.num_effective
    drifting = summarize_quantile([float(index) for index in range(20)], 0.95)
    assert drifting.num_effective == 1
    assert "20 calls, worth 1 independent one, are too few" in drifting.reason
    assert int(match[2]) == math.ceil(72 * 400 / found.num_effective)


def test_what_a_refusal_says_of_the_least_is_true_and_of_the_largest_would_not_be() -> None:
    draw, num_series, truth = random.Random(4), 400, -math.log(0.01)
    held = beyond_largest = 0
    for _ in range(num_series):
        values = [draw.expovariate(1) for _ in range(150)]
        floor = re.search(r"at least (\S+) with", summarize_quantile(values, 0.99, repr).reason)
        assert floor is not None
        held += float(floor[1]) <= truth
        beyond_largest += max(values) <= truth
    assert held / num_series >= 0.96
    assert beyond_largest / num_series < 0.35


def test_clusters_of_slow_calls_make_the_tail_uncertain_and_not_the_median() -> None:
    """Five stretches of 8 slow calls among 2,000: judged on the values, the heavy tail would decide for all quantiles."""
    draw = random.Random(1)
    values = [draw.gauss(10, 0.1) for _ in range(2000)]
    for begin in (130, 700, 1010, 1400, 1800):
        values[begin : begin + 8] = [draw.gauss(20, 0.1) for _ in range(8)]
    median, tail = summarize_quantiles(values, (0.5, 0.99))
    assert median.num_effective > 1000
    assert tail.num_effective < 368
    assert tail.is_autocorrelated
    assert "worth" in tail.reason


def test_single_outliers_do_not_hide_that_the_median_drifts() -> None:
    """Judged on the values, one call of an hour would make every series independent."""
    draw = random.Random(9)
    values = [math.sin(index / 60) + draw.gauss(0, 0.3) for index in range(1000)]
    values[500] = 3600.0
    found = summarize_quantile(values, 0.5)
    assert found.num_effective < 100
    assert found.is_autocorrelated


@pytest.mark.parametrize("seed", range(4))
def test_clustering_is_the_variance_ratio_of_the_indicator_series(seed: int) -> None:
    draw = random.Random(seed)
    state, values = 0.0, []
    for _ in range(810):
        state = 0.8 * state + draw.gauss(0, 1)
        values.append(state)
    level = sorted(values)[600]
    above = (np.array(values) > level).astype(float)
    edges = batch_edges(810)
    sums = [float((above - above.mean())[begin:end].sum()) for begin, end in pairwise(edges)]
    expected = batch_spread(sums, edges).corrected / (above.mean() * (1 - above.mean()))
    assert expected > 2
    assert clustering(values, level) == pytest.approx(expected)


def ar1(phi: float, count: int, draw: random.Random) -> list[float]:
    """Skewed values with median 1, each correlated with the one before."""
    state, values = draw.gauss(0, 1), []
    for _ in range(count):
        values.append(math.exp(state))
        state = phi * state + math.sqrt(1 - phi * phi) * draw.gauss(0, 1)
    return values


@pytest.mark.parametrize("probability", [0.5, 0.95, 0.99])
def test_correlated_values_have_the_ranks_of_their_effective_number(probability: float) -> None:
    count = 9000
    values = ar1(0.9, count, random.Random(12))
    rank_of = {value: rank for rank, value in enumerate(sorted(values), 1)}
    found = summarize_quantile(values, probability)
    worth = found.num_effective
    assert count / 40 < worth < count / 4
    ranks = quantile_ranks(worth, probability)
    assert ranks is not None
    assert found.low is not None
    assert found.high is not None
    assert found.upper_bound is not None
    # as far from the ends as the binomial ranks are, in shares of all values
    assert rank_of[found.low] == math.floor((ranks[0] - 1) * count / worth) + 1
    assert rank_of[found.high] == count - math.floor((worth - ranks[1]) * count / worth)
    reduced = int(worth * (stats.norm.ppf(0.99) / stats.t.ppf(0.99, 19)) ** 2)
    above = max(each for each in range(reduced) if stats.binom.cdf(each, reduced, 1 - probability) <= 0.01)
    assert rank_of[found.upper_bound] == count - math.floor(above * count / reduced)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_neighbours_above_are_counted_as_by_hand(flags: list[bool]) -> None:
    assert num_adjacent(bytes(flags)) == sum(early and late for early, late in pairwise(flags))


def test_one_call_after_another_above_is_enough_to_see_clusters() -> None:
    """Pairs of slow calls, evenly spaced: the batches are as even as can be, and only the neighbours tell."""
    values = [2.0 if index % 40 in (0, 1) else 1.0 for index in range(1000)]
    alternating = [2.0 if index % 20 == 0 else 1.0 for index in range(1000)]
    assert clustering(alternating, 1.5) == 1.0
    assert clustering(values, 1.5) >= 1.0
    drawn = random.Random(1)
    paired = [each for _ in range(500) for each in [drawn.random()] * 2]
    found = [clustering(paired, sorted(paired)[rank]) for rank in (300, 500, 700)]
    assert min(found) > 1.0


def test_too_few_extremes_to_judge_are_judged_by_the_fifty_beyond() -> None:
    """Ten alternating bursts of 50 fast and 50 slower calls; the ten slowest of all stand apart from each other."""
    draw = random.Random(3)
    values = [draw.gauss(1 + index // 50 % 2, 0.1) for index in range(1000)]
    for index in range(60, 1000, 100):
        values[index] = 3 + index / 1000
    assert clustering(values, sorted(values)[990]) == 1.0
    assert summarize_quantile(values, 0.99).num_effective < 1000


def test_equal_values_and_a_coarse_clock_are_no_trouble() -> None:
    found = summarize_quantiles([7] * 500, (0.5, 0.95, 0.99))
    assert [each.value for each in found] == [7, 7, 7]
    assert [(each.low, each.high, each.num_effective) for each in found] == [(7, 7, 500)] * 3
    draw = random.Random(1)
    coarse = [draw.choice((100, 100, 100, 200)) for _ in range(1000)]
    assert summarize_quantile(coarse, 0.5)[:3] == (100, 100, 100)
    assert summarize_quantile(coarse, 0.9).value == 200


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=300), st.sampled_from([0.05, 0.5, 0.9, 0.95]))
@settings(max_examples=80, deadline=None)
def test_nothing_but_ranks_counts(values: list[int], probability: float) -> None:
    found = summarize_quantile(values, probability)
    bent = summarize_quantile([value**3 for value in values], probability)
    assert bent[4:7] == found[4:7]
    assert 1 <= found.num_effective <= found.num_values == len(values)
    if found.value is None or found.low is None or found.high is None:
        assert found.num_effective < found.needed
        assert found.reason
        return
    assert found.low <= found.value <= found.high
    # the bounds are order statistics, unless the interpolated value lies outside of them
    assert bent.low is not None
    assert round(bent.low ** (1 / 3)) == found.low or found.low == found.value
    if found.upper_bound is not None and bent.upper_bound is not None:
        assert found.upper_bound in values
        assert round(bent.upper_bound ** (1 / 3)) == found.upper_bound


def test_a_low_quantile_mirrors_a_high_one() -> None:
    values = shuffled(500)
    high, low = summarize_quantile(values, 0.95), summarize_quantile([501 - each for each in values], 0.05)
    assert high.value is not None
    assert low.value == pytest.approx(501 - high.value)
    assert low.low == 501 - (high.high or 0)
    assert low.high == 501 - (high.low or 0)


def test_the_lowest_calls_too_are_judged_by_the_fifty_beyond() -> None:
    """The series of the test of the highest, upside down."""
    draw = random.Random(3)
    values = [-draw.gauss(1 + index // 50 % 2, 0.1) for index in range(1000)]
    for index in range(60, 1000, 100):
        values[index] = -3 - index / 1000
    assert clustering(values, sorted(values)[9]) == 1.0
    assert summarize_quantile(values, 0.01).num_effective < 1000


def covers(estimate: QuantileEstimate, truth: float) -> bool:
    return estimate.low is not None and estimate.high is not None and estimate.low <= truth <= estimate.high


@pytest.mark.parametrize(
    ("phi", "count"), [(0.0, 60), (0.0, 200), (0.5, 30), (0.5, 50), (0.5, 200), (0.8, 400), (0.9, 600)]
)
def test_the_median_interval_covers_in_95_percent_of_correlated_skewed_series(phi: float, count: int) -> None:
    draw, num_series = random.Random(7), 500
    found = [summarize_quantile(ar1(phi, count, draw), 0.5) for _ in range(num_series)]
    answers = [each for each in found if each.value is not None]
    assert len(answers) >= 0.9 * num_series
    assert 0.925 <= sum(covers(each, 1.0) for each in answers) / len(answers) <= 0.99
    assert sum(each.upper_bound is not None and each.upper_bound < 1 for each in found) / num_series <= 0.022


def test_p99_of_correlated_values_is_refused_and_of_independent_ones_given() -> None:
    draw = random.Random(11)
    given_correlated = given_independent = 0
    for _ in range(100):
        values = ar1(0.9, 1000, draw)
        given_correlated += summarize_quantile(values, 0.99).value is not None
        draw.shuffle(values)
        given_independent += summarize_quantile(values, 0.99).value is not None
    assert given_correlated <= 5
    assert given_independent >= 90
