"""What a load test concludes of what happened, from outcomes that are made up."""

from __future__ import annotations

import random

import pytest

from compressbench.core.statistics import proportion_interval
from compressbench.measure.endpoint_load import MAX_IN_FLIGHT, Load, Outcome
from compressbench.measure.goodput import RateResult, ServiceLevel, goodput, judge

LEVEL = ServiceLevel(ttft_s=0.2, tpot_s=0.05, goal=0.9)


def outcome(ttft_s: float, tpot_s: float, num_tokens: int = 11, *, at_s: float = 0.0, late_s: float = 0.0) -> Outcome:
    at = round(at_s * 1e9)
    tokens = tuple(at + round((ttft_s + number * tpot_s) * 1e9) for number in range(num_tokens))
    return Outcome(at, at + round(late_s * 1e9), tokens, tokens[-1] + 1_000_000, num_tokens)


def failure(kind: str = "http-429") -> Outcome:
    return Outcome(0, 0, (), 5, 0, kind, f"the server said {kind}")


def load(outcomes: list[Outcome], cpu_share: float = 0.1, max_in_flight: int = 3) -> Load:
    return Load(tuple(outcomes), 0, 10.0, cpu_share, max_in_flight)


GOOD, LATE_FIRST, SLOW = outcome(0.19, 0.049), outcome(0.21, 0.01), outcome(0.01, 0.051)


def shuffled(outcomes: list[Outcome]) -> list[Outcome]:
    random.Random(4).shuffle(outcomes)
    return outcomes


def test_a_request_is_good_if_it_keeps_both_limits() -> None:
    found = judge(load(shuffled([GOOD] * 60 + [LATE_FIRST] * 20 + [SLOW] * 20)), 8.0, LEVEL)
    assert (found.num_good, found.num_requests) == (60, 100)
    assert found.attainment.value == pytest.approx(0.6)
    assert found.goodput_per_s.value == pytest.approx(4.8)
    assert not found.is_kept


def test_limits_are_kept_at_the_limit_and_a_single_token_has_no_time_per_token() -> None:
    exact = Outcome(0, 0, (200_000_000, 250_000_000), 250_000_001, 2)
    assert LEVEL.is_kept_by(exact)
    assert LEVEL.is_kept_by(outcome(0.1, 9.0, num_tokens=1))


def test_failures_are_in_the_denominator_and_counted_by_kind() -> None:
    outcomes = [GOOD] * 90 + [failure()] * 6 + [failure("died")] * 4
    found = judge(load(shuffled(outcomes)), 8.0, LEVEL)
    assert found.num_requests == 100
    assert found.attainment.value == pytest.approx(0.9)
    assert found.failures == {"http-429": 6, "died": 4}
    assert found.said["died"] == "the server said died"


def test_a_failure_that_had_brought_tokens_in_time_is_not_good() -> None:
    broken = GOOD._replace(failure="broken-stream")
    assert not LEVEL.is_kept_by(broken)


def test_nothing_but_failures_has_no_quantiles_and_no_goodput() -> None:
    found = judge(load([failure()] * 50), 8.0, LEVEL)
    assert found.goodput_per_s.value == 0
    assert found.ttft_s["p50"].value is None
    assert found.ttft_s["p50"].reason
    assert found.output_tokens_per_s == 0


def test_the_interval_is_wilsons_for_independent_requests() -> None:
    outcomes = shuffled([GOOD] * 380 + [SLOW] * 20)
    found, wilson = judge(load(outcomes), 1.0, LEVEL).attainment, proportion_interval(0.95, 400)
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))


def test_requests_that_fail_together_are_worth_fewer() -> None:
    together = judge(load([GOOD] * 200 + [SLOW] * 20 + [GOOD] * 180), 1.0, LEVEL)
    apart = judge(load(shuffled([GOOD] * 380 + [SLOW] * 20)), 1.0, LEVEL)
    assert together.attainment.value == apart.attainment.value
    assert together.attainment.low is not None
    assert apart.attainment.low is not None
    assert together.attainment.low < apart.attainment.low
    assert apart.is_kept
    assert not together.is_kept


def test_a_rate_is_kept_only_if_its_whole_interval_is() -> None:
    assert not judge(load(shuffled([GOOD] * 46 + [SLOW] * 4)), 1.0, LEVEL).is_kept, "92 % of 50 may be less than 90 %"
    assert judge(load(shuffled([GOOD] * 920 + [SLOW] * 80)), 1.0, LEVEL).is_kept == (
        proportion_interval(0.92, 1000).low >= 0.9
    )


def rates(*kept: bool) -> list[RateResult]:
    some = judge(load([GOOD] * 100), 1.0, LEVEL)
    return [
        some.model_copy(update={"rate_per_s": float(at + 1), "is_kept": is_kept}) for at, is_kept in enumerate(kept)
    ]


@pytest.mark.parametrize(
    ("kept", "highest"), [((True, True, False), 2.0), ((True, False, True), 1.0), ((False, True), None), ((), None)]
)
def test_goodput_is_the_highest_rate_below_which_all_were_kept(kept: tuple[bool, ...], highest: float | None) -> None:
    found = goodput(list(reversed(rates(*kept))))
    assert (None if found is None else found.rate_per_s) == highest


def test_a_late_generator_says_nothing_of_the_server() -> None:
    late = [outcome(0.05, 0.01, late_s=0.02)] * 5 + [GOOD] * 95
    found = judge(load(late), 1.0, LEVEL)
    assert "late" in found.reason
    assert not found.is_kept
    assert not judge(load([outcome(0.05, 0.01, late_s=0.009)] * 100), 1.0, LEVEL).reason


def test_a_busy_generator_says_nothing_of_the_server() -> None:
    assert "of a core" in judge(load([GOOD] * 100, cpu_share=0.95), 1.0, LEVEL).reason
    assert "in flight" in judge(load([GOOD] * 100, max_in_flight=MAX_IN_FLIGHT + 1), 1.0, LEVEL).reason


def test_quantiles_are_of_the_answered_and_refused_where_too_few() -> None:
    outcomes = [outcome(0.1 + at / 1000, 0.02) for at in random.Random(2).sample(range(100), 100)]
    found = judge(load(outcomes), 1.0, LEVEL)
    assert found.ttft_s["p50"].value == pytest.approx(0.1495, abs=1e-3)
    assert found.ttft_s["p99"].value is None
    assert "100 requests" in found.ttft_s["p99"].reason
    assert found.tpot_s["p50"].value == pytest.approx(0.02)
    assert found.itl_s["p99"].value == pytest.approx(0.02)


def test_gaps_are_absent_where_tokens_come_several_at_a_time_uncounted() -> None:
    found = judge(load([GOOD._replace(knows_gaps=False, num_tokens=21)] + [GOOD] * 99), 1.0, LEVEL)
    assert found.itl_s["p50"].value is None
    assert "several at a time" in found.itl_s["p50"].reason
    assert GOOD._replace(num_tokens=21).tpot_s == pytest.approx(0.0245)
