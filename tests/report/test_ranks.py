"""Ranks by one figure: intervals and letters for those that can be ranked, a reason for the others."""

from __future__ import annotations

import math

import front_parts as parts

from compressbench.core.ranking import MOST_PAIRED
from compressbench.report.figures import Figure
from compressbench.report.ranks import ranks_by


def test_overlapping_intervals_tie_and_distinct_ones_have_their_own_rank() -> None:
    found = ranks_by([parts.baseline(), parts.candidate("a", 0.001, 0.5), parts.candidate("b", 0.2, 0.5)], "accuracy")
    assert found.scale == "against the baseline"
    assert [rank.interval for rank in found.ranks] == [(1, 2), (1, 2), (3, 3)]
    assert [rank.letters for rank in found.ranks] == [("a",), ("a",), ("b",)]


def test_counted_equal_sizes_tie_exactly() -> None:
    contenders = [parts.baseline(), *(parts.candidate(str(size), 0, size) for size in (0.5, 0.25, 0.5))]
    found = ranks_by(contenders, "disk_bytes")
    assert [rank.interval for rank in found.ranks] == [(4, 4), (2, 3), (1, 1), (2, 3)]
    assert [rank.letters for rank in found.ranks] == [("c",), ("b",), ("a",), ("b",)]


def test_who_can_not_be_ranked_has_the_reason_instead() -> None:
    contenders = [
        parts.baseline(),
        parts.candidate("ok", 0.01, 0.5, latency=0.5),
        parts.candidate("failed", 0.01, 0.1, latency=0.1, faults=("it broke",)),
        parts.candidate("unsteady", 0.01, 0.1, latency=0.1, unsteady=("not steady",)),
        parts.candidate("untimed", 0.01, 0.1),
        parts.contender("odd", {"latency_p50_s": Figure(None, reason="too few calls")}),
    ]
    found = ranks_by(contenders, "latency_p50_s")
    assert [rank.interval for rank in found.ranks] == [(2, 2), (1, 1), None, None, None, None]
    assert [rank.reason for rank in found.ranks] == [
        "", "", "it broke", "not steady", "it has no latency_p50_s", "too few calls",
    ]  # fmt: skip
    # what a clock took is worthless, what was counted isn't
    assert ranks_by(contenders, "disk_bytes").ranks[3].interval is not None
    assert ranks_by(contenders, "disk_bytes").ranks[2].interval is None


def test_a_number_that_is_none_is_not_ranked() -> None:
    for value in (math.nan, math.inf):
        odd = parts.contender("odd", {"accuracy": parts.score(value, 0.1)})
        found = ranks_by([parts.baseline(), odd, parts.candidate("ok", 0.1, 0.5)], "accuracy")
        assert [rank.interval for rank in found.ranks] == [(1, 1), None, (2, 2)]
        assert found.ranks[1].reason == "its value or its interval is no sound number"


def test_neither_is_a_baseline_whose_value_is_none_nor_an_interval_upside_down() -> None:
    baseline = parts.contender("baseline", {"disk_bytes": Figure(math.inf)})
    turned = parts.contender("turned", {"disk_bytes": Figure(1.0, ratio=0.5, ratio_low=0.9, ratio_high=0.2)})
    found = ranks_by([baseline, turned, parts.candidate("ok", 0.1, 0.5)], "disk_bytes")
    assert [rank.interval for rank in found.ranks] == [None, None, (1, 1)]


def test_a_baseline_without_a_value_is_not_the_best_of_nobody() -> None:
    baseline = parts.contender("baseline", {"ttft_p50_s": Figure(None, reason="nothing is generated")})
    assert ranks_by([baseline], "ttft_p50_s").ranks[0] == (None, (), "nothing is generated")


def test_of_many_rows_ranks_come_from_intervals_and_there_are_no_letters() -> None:
    contenders = [parts.candidate(f"c{at}", at / 1000, 0.5, error=0.0001) for at in range(MOST_PAIRED + 1)]
    found = ranks_by(contenders, "accuracy")
    assert found.method == "joint intervals"
    assert [rank.interval for rank in found.ranks] == [(at + 1, at + 1) for at in range(MOST_PAIRED + 1)]
    assert {rank.letters for rank in found.ranks} == {()}
