"""Highest rates and their ratios from trials that are known."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from compressbench.core.server_rates import (
    Bracket,
    HighestRate,
    brackets,
    highest_rate,
    of_finished_rounds,
    rate_ratio,
)
from compressbench.core.statistics import Interval


class Tried(NamedTuple):
    arm: str
    round: int
    rate_per_s: float
    is_kept: bool


def ends(arm: str, *pairs: tuple[float | None, float | None]) -> list[Tried]:
    """Per round the highest rate that was kept and the lowest that was not."""
    return [
        Tried(arm, number, rate, is_kept)
        for number, pair in enumerate(pairs)
        for rate, is_kept in zip(pair, (True, False), strict=True)
        if rate is not None
    ]


def test_a_bracket_is_the_highest_kept_and_the_lowest_not_kept_rate_of_a_round() -> None:
    tried = [
        *(Tried("baseline", 0, rate, rate < 50) for rate in (20.0, 80.0, 40.0, 60.0, 49.0, 52.0)),
        *(Tried("baseline", 1, rate, rate < 30) for rate in (20.0, 31.0, 29.0)),
        Tried("candidate", 0, 1000.0, True),
    ]
    random.Random(0).shuffle(tried)
    assert brackets(tried, "baseline") == {0: Bracket(49.0, 52.0), 1: Bracket(29.0, 31.0)}
    assert brackets(tried, "candidate") == {0: Bracket(1000.0, None)}
    assert brackets(tried, "control") == {}


def test_a_rate_above_one_that_was_not_kept_does_not_count() -> None:
    tried = [Tried("baseline", 0, 10.0, True), Tried("baseline", 0, 20.0, False), Tried("baseline", 0, 30.0, True)]
    assert brackets(tried, "baseline") == {0: Bracket(10.0, 20.0)}


def test_the_highest_rate_is_one_that_half_of_the_rounds_kept() -> None:
    tried = ends("baseline", (50, 51), (40, 41), (60, 61))
    assert highest_rate(tried, "baseline") == HighestRate(50, 40, 61, 3)
    assert highest_rate(tried[:4], "baseline") == HighestRate(40, 40, 51, 2)
    assert highest_rate(ends("baseline", (50, 51)), "baseline") == HighestRate(50, 50, 51, 1)


def test_without_a_rate_that_was_not_kept_the_highest_has_no_upper_end() -> None:
    assert highest_rate(ends("baseline", (50, 51), (55, None)), "baseline") == HighestRate(50, 50, None, 2)


def test_an_arm_that_kept_no_rate_in_some_round_has_no_highest() -> None:
    assert highest_rate(ends("baseline", (50, 51), (None, 2)), "baseline") is None
    assert highest_rate([], "baseline") is None


def test_a_last_round_that_was_broken_off_is_left_out_but_not_if_it_is_all_there_is() -> None:
    tried = [*ends("baseline", (50, 51), (49, 50)), Tried("baseline", 2, 49.0, False)]
    finished = of_finished_rounds(tried, 2)
    assert finished == tried[:4]
    assert highest_rate(finished, "baseline") == HighestRate(49, 49, 51, 2)
    first = [Tried("baseline", 0, 40.0, True), Tried("baseline", 0, 80.0, False)]
    assert of_finished_rounds(first, 0) == first


def test_the_ratio_is_students_over_rounds_widened_by_the_brackets() -> None:
    ours, theirs = [(102.0, 104.0), (110.0, 112.0), (98.0, 100.0)], [(50.0, 51.0), (52.0, 53.0), (49.0, 50.0)]
    found = rate_ratio([*ends("candidate", *ours), *ends("baseline", *theirs)], "candidate")
    logs = np.log([math.sqrt(a * b) / math.sqrt(c * d) for (a, b), (c, d) in zip(ours, theirs, strict=True)])
    half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    slack = np.mean([math.log(b / a * d / c) / 2 for (a, b), (c, d) in zip(ours, theirs, strict=True)])
    assert isinstance(found, Interval)
    expected = np.exp([logs.mean(), logs.mean() - half - slack, logs.mean() + half + slack])
    assert list(found) == pytest.approx(expected.tolist(), rel=1e-9)


def test_rounds_that_agree_leave_the_resolution_of_the_search() -> None:
    found = rate_ratio(
        [*ends("candidate", *[(200.0, 204.0)] * 5), *ends("baseline", *[(100.0, 102.0)] * 5)], "candidate"
    )
    assert isinstance(found, Interval)
    assert found == pytest.approx((2.0, 200 / 102, 204 / 100), rel=1e-9)


def test_few_rounds_or_rounds_without_a_bracket_give_a_reason_and_no_ratio() -> None:
    whole = ends("baseline", *[(100.0, 102.0)] * 3)
    for ours in ([(200.0, 204.0)] * 2, [(200.0, 204.0), (200.0, None), (200.0, 204.0)], [(None, 5.0)] * 3):
        found = rate_ratio([*ends("candidate", *ours), *whole], "candidate")
        assert isinstance(found, str)
        assert "needs 3 rounds" in found
    assert isinstance(rate_ratio(whole, "candidate"), str)


def test_the_interval_holds_the_true_ratio_in_95_of_100_cases() -> None:
    """Rounds that scatter by more or less than the resolution; a search that ends anywhere around the true rate."""
    for scatter in (0.002, 0.03):
        draw, num_held, num_cases = random.Random(5), 0, 400
        for _ in range(num_cases):
            tried: list[Tried] = []
            for number in range(5):
                luck = draw.gauss(0, 0.2)
                for arm, rate in (("baseline", 100.0), ("candidate", 130.0)):
                    threshold = rate * math.exp(luck + draw.gauss(0, scatter / math.sqrt(2)))
                    below = threshold / 1.02 ** draw.random()
                    tried += [Tried(arm, number, below, True), Tried(arm, number, below * 1.02, False)]
            found = rate_ratio(tried, "candidate")
            assert isinstance(found, Interval)
            num_held += found.low <= 1.3 <= found.high
        assert num_held >= stats.binom.ppf(0.001, num_cases, 0.95)
