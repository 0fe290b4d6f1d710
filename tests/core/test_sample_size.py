"""Sample sizes against the published table, an independent power calculation, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from compressbench.core.sample_size import (
    samples_for_equivalence,
    samples_for_mean_equivalence,
    samples_to_detect,
    samples_to_detect_mean,
    smallest_detectable_difference,
    smallest_detectable_mean,
)

CHURNS = (0.01, 0.02, 0.05, 0.10, 0.15)


def test_half_a_point_needs_the_published_numbers_of_samples() -> None:
    assert [samples_to_detect(0.005, churn) for churn in CHURNS] == [3132, 6272, 15690, 31388, 47086]
    assert [samples_to_detect(0.005, churn, power=0.9) for churn in CHURNS] == [4193, 8396, 21005, 42020, 63035]
    assert [samples_for_equivalence(0.005, churn) for churn in CHURNS] == [3426, 6852, 17128, 34256, 51384]


@pytest.mark.parametrize(
    ("count", "points"),
    [
        (1172, (1.16, 1.83, 2.59)),
        (1319, (1.09, 1.72, 2.44)),
        (1838, (0.92, 1.46, 2.07)),
        (10_042, (0.40, 0.63, 0.88)),
        (14_042, (0.33, 0.53, 0.75)),
        (872, (1.3, 2.1, 3.0)),
        (9815, (0.40, 0.63, 0.89)),
        (40_430, (0.20, 0.31, 0.44)),
    ],
)
def test_the_smallest_detectable_differences_are_the_published_ones(count: int, points: tuple[float, ...]) -> None:
    # the published list leaves out the square of the difference, which makes it larger by up to 0.012 points here
    found = [100 * smallest_detectable_difference(churn, count) for churn in (0.02, 0.05, 0.10)]
    assert found == pytest.approx(points, abs=0.051 if count == 872 else 0.012)


@pytest.mark.parametrize("count", [300, 1172, 14_042, 100_000])
@pytest.mark.parametrize("churn", [0.03, 0.10, 0.5])
@pytest.mark.parametrize(("power", "alpha"), [(0.8, 0.05), (0.95, 0.01)])
def test_the_smallest_difference_and_the_number_of_samples_are_inverse(
    count: int, churn: float, power: float, alpha: float
) -> None:
    difference = smallest_detectable_difference(churn, count, power, alpha)
    if difference <= churn:
        assert abs(samples_to_detect(difference, churn, power, alpha) - count) <= 1
        assert samples_to_detect(-1.001 * difference, churn, power, alpha) <= count
        assert samples_to_detect(0.99 * difference, churn, power, alpha) > count


def test_where_all_flips_one_way_are_too_few_the_smallest_churn_that_suffices_is_named() -> None:
    # 164 items at 2 % churn: 3 flips, which no test can tell from chance
    found = smallest_detectable_difference(0.02, 164)
    assert found == smallest_detectable_difference(0.0, 164) == pytest.approx(0.0457, abs=1e-4)
    assert abs(samples_to_detect(found * (1 + 1e-9), found * (1 + 1e-9)) - 164) <= 1
    assert smallest_detectable_difference(found, 164) == pytest.approx(found)


@pytest.mark.parametrize("difference", [0.05, 0.1, 0.3, 0.5, 0.8, 1.2])
@pytest.mark.parametrize(("power", "alpha"), [(0.8, 0.05), (0.9, 0.01)])
def test_a_mean_needs_as_many_samples_as_the_noncentral_t_says(difference: float, power: float, alpha: float) -> None:
    expected = float(TTestPower().solve_power(difference, None, alpha, power))
    found = samples_to_detect_mean(3 * difference, 3, power, alpha)
    assert found == samples_to_detect_mean(-difference, 1, power, alpha)
    assert abs(found - math.ceil(expected)) <= 1
    assert samples_to_detect_mean(smallest_detectable_mean(3, found, power, alpha), 3, power, alpha) == found


def power_of_mean_equivalence(count: int, margin: float, num_trials: int) -> float:
    """How often t-tests of normal differences with sd 1 and mean 0 pass; mean and variance are drawn independently."""
    from scipy import stats

    draw = np.random.default_rng(8)
    mean = draw.standard_normal(num_trials) / math.sqrt(count)
    error = np.sqrt(draw.chisquare(count - 1, num_trials) / (count - 1) / count)
    return float(np.mean((margin - np.abs(mean)) / error > stats.t.ppf(0.95, count - 1)))


@pytest.mark.parametrize("margin", [0.05, 0.2, 0.5])
def test_equivalence_of_means_at_the_planned_number_has_the_planned_power(margin: float) -> None:
    found = samples_for_mean_equivalence(5 * margin, 5)
    assert power_of_mean_equivalence(found, margin, 100_000) == pytest.approx(0.80, abs=0.02)
    more = samples_for_mean_equivalence(margin, 1, power=0.95)
    assert power_of_mean_equivalence(more, margin, 100_000) == pytest.approx(0.95, abs=0.02)


def test_too_few_samples_detect_no_mean_however_large() -> None:
    assert smallest_detectable_mean(1.0, 1) == math.inf
    assert smallest_detectable_mean(1.0, 2) > 5
    assert samples_to_detect_mean(1e9, 1.0) == 2


def test_plans_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="at most the churn"):
        samples_to_detect(0.05, 0.02)
    with pytest.raises(ValueError, match="not zero"):
        samples_to_detect(0.0, 0.02)
    with pytest.raises(ValueError, match="difference of zero"):
        samples_to_detect_mean(0.0, 1.0)
    with pytest.raises(ValueError, match="share of the items"):
        samples_for_equivalence(0.01, 0.0)
    with pytest.raises(ValueError, match="share of the items"):
        smallest_detectable_difference(1.5, 10)
    with pytest.raises(ValueError, match="margin is above zero"):
        samples_for_equivalence(-0.01, 0.1)
    with pytest.raises(ValueError, match="sd is above zero"):
        samples_for_mean_equivalence(0.01, math.nan)
    with pytest.raises(ValueError, match="between alpha and 1"):
        samples_to_detect(0.01, 0.1, power=1.0)
    with pytest.raises(ValueError, match="between alpha and 1"):
        samples_for_equivalence(0.01, 0.1, power=0.01)
