"""Warm-up ends when the calls have stopped changing, and says what moved if they never did."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from compressbench.measure.drift import DriftRule, judge
from compressbench.measure.steady_state import CallSeries, WarmUpRule, warm_up
from compressbench.records.measurement import WarmUp
from compressbench.testing import FakeClock

RULE = WarmUpRule(min_s=0.0)


def warmed(seconds: Callable[[int], float], rule: WarmUpRule = RULE) -> tuple[WarmUp, float]:
    clock = FakeClock()
    return warm_up(lambda index: clock.advance(seconds(index)), clock, rule)


def test_constant_calls_are_steady_when_twenty_can_be_judged() -> None:
    found, typical = warmed(lambda index: 0.010)
    # looked at after 10, 12, 14, 17 and 20 calls
    assert (found.num_calls, found.steady_state, found.reason) == (20, "yes", "")
    assert found.seconds == pytest.approx(0.2)
    assert typical == pytest.approx(0.010)


def test_a_slow_first_call_is_recorded_apart_and_does_not_keep_it_from_being_steady() -> None:
    found, typical = warmed(lambda index: 3.0 if index == 0 else 0.010, RULE._replace(max_s=10.0))
    assert (found.steady_state, found.first_call_s) == ("yes", 3.0)
    assert found.num_calls < 40
    assert typical == pytest.approx(0.010)


@pytest.mark.parametrize("amplitude", [1.0, 4.0])
@pytest.mark.parametrize("sd", [0.0, 0.03])
def test_an_exponential_warm_up_runs_on_until_what_is_left_is_small(amplitude: float, sd: float) -> None:
    draw = random.Random(1)
    found, typical = warmed(
        lambda index: 0.001 * (1 + amplitude * math.exp(-index / 30)) * math.exp(sd * draw.gauss(0, 1))
    )
    assert found.steady_state == "yes"
    assert amplitude * math.exp(-found.num_calls / 30) < 0.01
    assert typical == pytest.approx(0.001, rel=0.02)


def test_it_lasts_at_least_as_long_as_the_rule_says() -> None:
    found, _ = warmed(lambda index: 0.010, WarmUpRule(min_s=0.5))
    assert found.num_calls == 50
    found, _ = warmed(lambda index: 0.010, RULE._replace(min_calls=33))
    assert found.num_calls == 33


def test_what_drifts_for_ever_is_never_steady_and_the_reason_says_which_way() -> None:
    found, _ = warmed(lambda index: 0.010 * 1.002**index)
    assert found.steady_state == "not-reached"
    assert "slower from their first half to their second" in found.reason
    assert 5.0 <= found.seconds < 5.0 + 0.010 * 1.002**found.num_calls


def test_noisy_calls_are_watched_until_a_drift_would_have_been_seen() -> None:
    draw = random.Random(2)
    quiet, _ = warmed(lambda index: 0.005 * math.exp(0.01 * draw.gauss(0, 1)))
    noisy, _ = warmed(lambda index: 0.005 * math.exp(0.05 * draw.gauss(0, 1)))
    blunt, _ = warmed(
        lambda index: 0.005 * math.exp(0.05 * draw.gauss(0, 1)), RULE._replace(drift=DriftRule(resolution=0.2))
    )
    assert quiet.num_calls < 80
    assert 150 < noisy.num_calls < 900
    assert blunt.num_calls < 80
    assert {quiet.steady_state, noisy.steady_state, blunt.steady_state} == {"yes"}


def test_calls_too_noisy_to_judge_sharply_are_steady_at_the_end_if_nothing_is_seen_to_move() -> None:
    draw = random.Random(3)
    found, _ = warmed(lambda index: 0.005 * math.exp(0.5 * draw.gauss(0, 1)))
    assert found.steady_state == "yes"
    assert 5.0 <= found.seconds < 5.1


def test_a_slow_model_gets_the_ten_calls_that_a_judgement_needs() -> None:
    found, typical = warmed(lambda index: 1.5)
    assert (found.num_calls, found.steady_state, found.first_call_s) == (10, "yes", 1.5)
    assert typical == 1.5


def test_a_slow_model_that_drifts_gets_up_to_thirty_calls() -> None:
    settling, _ = warmed(lambda index: 1.0 + 0.5 * math.exp(-index / 4))
    assert settling.steady_state == "yes"
    assert 10 < settling.num_calls <= 30
    drifting, _ = warmed(lambda index: 1.0 + 0.02 * index)
    assert (drifting.num_calls, drifting.steady_state) == (30, "not-reached")
    capped, _ = warmed(lambda index: 3.0 + 0.1 * index)
    assert capped.steady_state == "not-reached"
    assert 60.0 <= capped.seconds < 66.0


@pytest.mark.parametrize(("seconds", "count"), [(7.0, 9), (25.0, 3), (90.0, 1)])
def test_a_call_too_long_for_ten_of_them_ends_at_the_cap_with_the_reason(seconds: float, count: int) -> None:
    found, typical = warmed(lambda index: seconds)
    assert (found.num_calls, found.steady_state, found.first_call_s) == (count, "not-reached", seconds)
    assert found.reason == f"only {count} calls in {seconds * count:.1f} s: a judgement needs 10"
    assert typical == seconds


def test_single_outliers_do_not_keep_it_from_being_steady() -> None:
    found, typical = warmed(lambda index: 0.05 if index % 7 == 0 else 0.001)
    assert found.steady_state == "yes"
    assert typical == pytest.approx(0.001)


def test_the_detector_is_asked_when_the_calls_have_grown_by_15_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    from compressbench.measure import steady_state

    asked: list[int] = []

    def watched(values: list[float], width: int, rule: DriftRule) -> object:
        asked.append(len(values) * width)
        return judge(values, width, rule)

    monkeypatch.setattr(steady_state, "judge", watched)
    warmed(lambda index: 0.001 * 1.001**index)
    assert len(asked) < 45
    assert all(later >= 1.1 * earlier for earlier, later in pairwise(asked[:-1]))


def test_the_first_thousand_calls_are_kept_as_they_are_and_then_medians_of_five() -> None:
    series = CallSeries()
    for index in range(999):
        series.add(float(index))
    assert (series.width, series.values) == (1, [float(index) for index in range(999)])
    series.add(999.0)
    assert (series.width, series.values) == (5, [5.0 * block + 2 for block in range(200)])


def test_a_million_calls_need_no_more_than_some_hundred_medians() -> None:
    series = CallSeries()
    for index in range(300_000):
        series.add(float(index))
    assert 200 <= len(series.values) < 400
    middle = [series.width * (block + 0.5) - 0.5 for block in range(len(series.values))]
    assert series.values == pytest.approx(middle, abs=0.5)
