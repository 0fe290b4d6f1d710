"""Series whose neighbours resemble each other, against closed forms of AR(1), numpy and simulation."""

from __future__ import annotations

import math
import random
import statistics
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressbench.core import statistics as independent
from compressbench.core.autocorrelation import batch_edges, batch_spread, effective_sample_size, series_mean_interval


def ar1(phi: float, count: int, draw: random.Random) -> list[float]:
    """Values of variance 1, each correlated by `phi` with the one before."""
    values = [draw.gauss(0, 1)]
    for _ in range(count - 1):
        values.append(phi * values[-1] + math.sqrt(1 - phi * phi) * draw.gauss(0, 1))
    return values


@pytest.mark.parametrize("count", [2, 3, 19, 20, 21, 39, 40, 812])
def test_batches_cover_everything_once_and_are_as_equal_as_can_be(count: int) -> None:
    edges = batch_edges(count)
    sizes = {end - begin for begin, end in pairwise(edges)}
    assert (edges[0], edges[-1], len(edges) - 1) == (0, count, min(20, count))
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


def test_the_raw_spread_is_the_batch_length_times_the_variance_of_the_batch_means() -> None:
    values = np.array(ar1(0.5, 400, random.Random(1)))
    sums = (values - values.mean()).reshape(20, 20).sum(axis=1)
    means = values.reshape(20, 20).mean(axis=1)
    found = batch_spread(sums.tolist(), batch_edges(400))
    assert found.raw == pytest.approx(20 * means.var(ddof=1))
    shared = (
        float(np.sum((means - values.mean())[1:] * (means - values.mean())[:-1]) / (19 * means.var(ddof=1))) + 1 / 20
    )
    assert 0 < shared < 0.9
    assert found.corrected == pytest.approx(found.raw * (1 + shared) / (1 - shared))


def test_batches_that_alternate_are_not_taken_for_more_than_independent() -> None:
    found = batch_spread([1.0, -1.0] * 10, batch_edges(400))
    assert found.corrected == found.raw > 0


def test_batches_that_only_rise_are_corrected_by_a_limited_factor() -> None:
    found = batch_spread([float(each) - 9.5 for each in range(20)], batch_edges(20))
    assert 10 < found.corrected / found.raw <= 19.001


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8, 0.9])
def test_an_ar1_series_is_worth_what_its_closed_form_says(phi: float) -> None:
    draw, count = random.Random(5), 4000
    found = statistics.median(effective_sample_size(ar1(phi, count, draw)) for _ in range(31))
    expected = count * (1 - phi) / (1 + phi)
    assert 0.75 * expected <= found <= 1.05 * expected


def test_what_does_not_move_or_alternates_is_worth_its_number() -> None:
    assert effective_sample_size([3.0] * 50) == 50
    assert effective_sample_size([1.0, 2.0] * 100) == 200
    assert effective_sample_size([1.0]) == 1
    assert effective_sample_size([]) == 0


def test_one_step_up_is_worth_next_to_nothing() -> None:
    assert effective_sample_size([1.0] * 200 + [2.0] * 200) < 5


@pytest.mark.parametrize(("phi", "count"), [(0.0, 40), (0.5, 60), (0.8, 100), (0.9, 200)])
def test_the_interval_covers_where_that_for_independent_values_does_not(phi: float, count: int) -> None:
    draw, num_series = random.Random(17), 500
    series = [ar1(phi, count, draw) for _ in range(num_series)]
    ours = sum(found.low <= 0 <= found.high for found in map(series_mean_interval, series)) / num_series
    theirs = sum(found.low <= 0 <= found.high for found in map(independent.mean_interval, series)) / num_series
    assert 0.91 <= ours <= 0.985
    assert phi == 0 or theirs < 0.8


def test_the_order_of_time_decides() -> None:
    draw = random.Random(2)
    values = [draw.gauss(10, 1) for _ in range(200)]
    shuffled, rising = series_mean_interval(values), series_mean_interval(sorted(values))
    assert rising.value == pytest.approx(shuffled.value)
    assert rising.high - rising.low > 5 * (shuffled.high - shuffled.low)


def test_few_effective_values_have_few_degrees_of_freedom() -> None:
    """Twelve values in two levels: Student's t of one degree of freedom, 12.7, and not of eleven, 2.2."""
    found = series_mean_interval([1.0] * 6 + [2.0] * 6)
    assert found.value == 1.5
    assert found.high - found.low > 10


@given(
    st.lists(st.integers(-1000, 1000), min_size=2, max_size=90),
    st.floats(0.01, 100),
    st.integers(-1000, 1000),
)
@settings(max_examples=60, deadline=None)
def test_another_unit_and_another_zero_change_nothing_else(values: list[int], factor: float, shift: int) -> None:
    found = series_mean_interval(values)
    moved = series_mean_interval([factor * value + shift for value in values])
    expected = [factor * each + shift for each in found]
    assert list(moved) == pytest.approx(expected, rel=1e-6, abs=1e-6 * factor * 1000)
    assert 1 <= effective_sample_size(values) <= len(values)


def test_more_confidence_is_wider() -> None:
    values = ar1(0.5, 100, random.Random(3))
    narrow, wide = series_mean_interval(values), series_mean_interval(values, confidence=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_value_has_no_interval_of_a_series(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least 2 values"):
        series_mean_interval(values)
