"""Poisson arrivals against what is known of Poisson processes."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from compressbench.core.errors import InputError
from compressbench.measure.arrivals import arrivals_ns, unit_arrivals


def gaps(times: list[float]) -> list[float]:
    return [times[0], *(later - earlier for earlier, later in pairwise(times))]


def test_gaps_are_exponential() -> None:
    # with its mean fixed the test is conservative, so 1 of 20 seeds below 5 % would already be many
    p_values = [stats.kstest(gaps(unit_arrivals(2000, seed)), "expon").pvalue for seed in range(20)]
    assert min(p_values) > 0.001
    assert stats.kstest([2 * gap for gap in gaps(unit_arrivals(2000, 0))], "expon").pvalue < 1e-6


def test_gaps_do_not_depend_on_the_gaps_before() -> None:
    drawn = gaps(unit_arrivals(20_000, 3))
    lag_one = np.corrcoef(drawn[:-1], drawn[1:])[0, 1]
    assert abs(lag_one) < 4 / math.sqrt(len(drawn))


def test_counts_in_equal_windows_have_the_variance_of_poisson_counts() -> None:
    times = unit_arrivals(50_000, 5)
    counts, _ = np.histogram(times, bins=np.arange(0, 50_001, 10))
    dispersion = counts.var() / counts.mean()
    assert dispersion == pytest.approx(1, abs=4 * math.sqrt(2 / len(counts)))


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_the_rate_is_exactly_the_one_that_was_asked_for(count: int) -> None:
    times = unit_arrivals(count, 11)
    assert len(times) == count
    assert times[-1] == count
    assert times == sorted(times)
    assert times[0] > 0
    assert arrivals_ns(times, 40.0)[-1] == count * 25_000_000


def test_a_seed_always_gives_the_same_pattern_and_another_seed_another() -> None:
    assert unit_arrivals(50, 7) == unit_arrivals(50, 7)
    assert unit_arrivals(50, 7) != unit_arrivals(50, 8)
    # by hand from random.Random(7): the first of three gaps over their sum, times 3
    first, second, third = (
        -math.log(1 - draw) for draw in (0.32383276483316237, 0.15084917392450192, 0.6509344730398537)
    )
    assert unit_arrivals(3, 7)[0] == pytest.approx(3 * first / (first + second + third), rel=1e-12)


def test_every_rate_stretches_the_same_pattern() -> None:
    unit = unit_arrivals(500, 1)
    slow, fast = arrivals_ns(unit, 10.0), arrivals_ns(unit, 250.0)
    assert max(abs(a - 25 * b) for a, b in zip(slow, fast, strict=True)) <= 13
    assert slow == [round(time * 1e8) for time in unit]


@pytest.mark.parametrize("count", [0, -1])
def test_a_pattern_without_arrivals_is_an_error(count: int) -> None:
    with pytest.raises(InputError, match="at least one query"):
        unit_arrivals(count, 0)


@pytest.mark.parametrize("rate", [0.0, -3.0, math.inf, math.nan])
def test_a_rate_that_is_none_is_an_error(rate: float) -> None:
    with pytest.raises(InputError, match="positive number per second"):
        arrivals_ns([1.0], rate)
