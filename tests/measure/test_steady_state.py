"""Warm-up ends when the calls have stopped changing, and says so if they never did."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from compressbench.measure.steady_state import WarmUpRule, is_steady, warm_up
from compressbench.records.record import WarmUp
from compressbench.testing import FakeClock

RULE = WarmUpRule(min_calls=10, min_s=0.0, max_s=5.0, tolerance=0.05)


def warmed(seconds: Callable[[int], float], rule: WarmUpRule = RULE) -> tuple[WarmUp, float]:
    clock = FakeClock()
    return warm_up(lambda index: clock.advance(seconds(index)), clock, rule)


def test_constant_calls_are_steady_after_ten() -> None:
    found, typical = warmed(lambda index: 0.010)
    assert (found.num_calls, found.steady_state) == (10, "yes")
    assert found.seconds == pytest.approx(0.1)
    assert typical == pytest.approx(0.010)


@pytest.mark.parametrize("amplitude", [1.0, 4.0])
def test_an_exponential_warm_up_runs_on_until_what_is_left_is_small(amplitude: float) -> None:
    def seconds(index: int) -> float:
        return 0.001 * (1 + amplitude * math.exp(-index / 30))

    found, typical = warmed(seconds)
    assert found.steady_state == "yes"
    assert found.num_calls > 40
    assert typical <= 0.001 * 1.1
    assert found.first_call_s == pytest.approx(0.001 * (1 + amplitude), rel=1e-5)


def test_it_lasts_at_least_as_long_as_the_rule_says() -> None:
    found, _ = warmed(lambda index: 0.010, RULE._replace(min_s=0.5))
    assert found.num_calls == 50
    found, _ = warmed(lambda index: 0.010, RULE._replace(min_calls=33))
    assert found.num_calls == 33


def test_what_drifts_for_ever_is_never_steady() -> None:
    found, _ = warmed(lambda index: 0.010 * 1.01**index)
    assert found.steady_state == "not-reached"
    assert found.seconds >= 5.0
    assert found.seconds < 5.0 + 0.010 * 1.01**found.num_calls


def test_a_slow_model_gets_the_ten_calls_that_a_judgement_needs() -> None:
    found, typical = warmed(lambda index: 1.5)
    assert (found.num_calls, found.steady_state, found.first_call_s) == (10, "yes", 1.5)
    assert typical == 1.5


def test_a_call_too_long_for_ten_of_them_ends_at_the_cap() -> None:
    found, typical = warmed(lambda index: 7.0)
    assert (found.num_calls, found.steady_state, found.first_call_s) == (9, "not-reached", 7.0)
    assert typical == 7.0


@pytest.mark.parametrize("count", range(10))
def test_fewer_than_ten_calls_are_never_steady(count: int) -> None:
    assert not is_steady([0.01] * count, 0.05)


@pytest.mark.parametrize(("recent", "expected"), [(1.0, True), (1.049, True), (1.051, False), (0.949, False)])
def test_ten_calls_are_steady_if_their_halves_agree(recent: float, expected: bool) -> None:
    assert is_steady([1.0] * 5 + [recent] * 5, 0.05) is expected


def test_only_the_last_forty_calls_count() -> None:
    assert is_steady([9.0] * 50 + [1.0] * 40, 0.05)
    assert not is_steady([9.0] * 50 + [1.0] * 20, 0.05)


def test_single_outliers_do_not_keep_it_from_being_steady() -> None:
    found, typical = warmed(lambda index: 0.05 if index % 7 == 0 else 0.001)
    assert found.steady_state == "yes"
    assert typical == pytest.approx(0.001)
