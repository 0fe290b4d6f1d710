"""Savings from paired ratios: signs, images, noise, and what an answer that is right costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compressbench.core.statistics import Interval
from compressbench.lifecycle.savings import (
    Pair,
    difference,
    exact,
    per_correct,
    product,
    quotient,
    saving_of,
    total,
    weakest,
)

_Z95 = 1.959963984540054


def lognormal(rng: np.random.Generator, middle: float, error: float) -> Interval:
    """An estimate of `middle` with this standard error of its logarithm, and its interval."""
    value = middle * math.exp(error * rng.normal())
    return Interval(value, value * math.exp(-_Z95 * error), value * math.exp(_Z95 * error))


def test_with_an_exact_baseline_the_saving_is_the_image_of_the_ratio() -> None:
    found = difference(exact(2.0), Interval(0.6, 0.5, 0.7))
    assert found == pytest.approx((0.8, 0.6, 1.0))
    assert difference(exact(2.0), Interval(1.1, 0.9, 1.2)) == pytest.approx((-0.2, -0.4, 0.2))
    assert difference(exact(2.0), exact(1.0)) == (0, 0, 0)


def test_with_an_exact_ratio_it_is_the_image_of_the_baseline() -> None:
    assert difference(Interval(2.0, 1.5, 2.5), exact(0.5)) == pytest.approx((1.0, 0.75, 1.25))
    assert difference(Interval(2.0, 1.5, 2.5), exact(1.5)) == pytest.approx((-1.0, -1.25, -0.75))


def test_signs_are_those_of_the_ratio_whatever_the_baseline() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        base, ratio = lognormal(rng, 3.0, 0.3), lognormal(rng, 1.0, float(rng.uniform(0.001, 0.5)))
        found = difference(base, ratio)
        assert found.low <= found.value <= found.high
        assert [np.sign(each) for each in found] == [np.sign(1 - each) for each in (ratio.value, ratio.high, ratio.low)]


@pytest.mark.parametrize(
    ("base", "ratio", "error"), [(0.0, 0.6, 0.02), (0.05, 0.6, 0.05), (0.1, 0.97, 0.01), (0.1, 1.2, 0.05)]
)
def test_intervals_hold_the_truth_in_95_of_100(base: float, ratio: float, error: float) -> None:
    rng = np.random.default_rng(1)
    truth, held = 10 * (1 - ratio), 0
    for _ in range(3000):
        found = difference(lognormal(rng, 10.0, base), lognormal(rng, ratio, error))
        held += found.low <= truth <= found.high
    assert 0.93 <= held / 3000 <= 0.97


def test_a_ratio_within_the_baselines_own_noise_decides_nothing() -> None:
    ratio = Interval(0.97, 0.96, 0.98)
    found = saving_of(Pair(exact(1.0), ratio, noise=0.05))
    assert found.is_within_noise
    assert found.value == pytest.approx((0.03, -0.03, 0.09))
    assert saving_of(Pair(exact(1.0), ratio, noise=0.02)).value == pytest.approx((0.03, 0.02, 0.04))
    assert saving_of(Pair(exact(1.0), ratio, noise=None)).value is None
    assert "not measured" in saving_of(Pair(exact(1.0), ratio, noise=None)).reason


def test_what_is_missing_or_unsound_says_why() -> None:
    assert saving_of(Pair(None, None, reason="no counter")).reason == "no counter"
    assert saving_of(Pair(exact(0.0), exact(0.5))).value is None
    assert saving_of(Pair(exact(1.0), Interval(0.5, 0.4, math.inf))).value is None
    with pytest.raises(ValueError, match="above zero"):
        quotient(exact(1.0), exact(0.0))


def test_products_and_quotients_of_logarithms_are_those_of_normal_errors() -> None:
    one, other = Interval(2.0, 2 / 1.1, 2 * 1.1), Interval(5.0, 5 / 1.2, 5 * 1.2)
    half = math.hypot(math.log(1.1), math.log(1.2))
    assert product(one, other) == pytest.approx((10, 10 * math.exp(-half), 10 * math.exp(half)))
    assert quotient(one, other) == pytest.approx((0.4, 0.4 * math.exp(-half), 0.4 * math.exp(half)))
    assert total([one, exact(1.0)]) == pytest.approx((3, 1 + 2 / 1.1, 3.2))


def test_a_correct_answer_costs_more_where_fewer_are_correct() -> None:
    joules = Pair(exact(2.0), exact(0.8))
    accuracy = Pair(exact(0.8), exact(0.75))
    found = per_correct(joules, accuracy)
    assert found.base == pytest.approx((2.5, 2.5, 2.5))
    assert found.ratio == pytest.approx((0.8 / 0.75,) * 3)
    # 2.5 J with the baseline; 1.6 J per inference and 0.6 correct with the candidate
    assert saving_of(found).value == pytest.approx((2.5 - 1.6 / 0.6,) * 3)
    assert per_correct(joules, Pair(None, None, reason="no task counts")).reason == "no task counts"


def test_a_result_is_as_weak_as_its_weakest_part() -> None:
    assert weakest(["measured", "", "estimated"]) == "estimated"
    assert weakest(["assumed", "modelled"]) == "assumed"
    assert weakest([]) == ""
