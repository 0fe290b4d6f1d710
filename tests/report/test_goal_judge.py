"""A goal is judged by the bounds of an interval, not by its middle."""

from __future__ import annotations

from typing import Any

import pytest
from contender_builder import contender, cost, counted, score
from hypothesis import given
from hypothesis import strategies as st

from compressbench.report.figures import Contender, Figure
from compressbench.report.goal_judge import Judgement, judge, worst_of
from compressbench.report.goals import Goal, goals_of


def judged(word: str, limit: float, figure: Figure, name: str = "accuracy", **changed: object) -> Judgement:
    goals, wrong = goals_of(name, {word: limit})
    assert not wrong
    [found] = judge(goals[0], contender("int8", {name: figure}, **changed))
    return found


@pytest.mark.parametrize(
    ("limit", "outcome", "shortfall"),
    [(0.012, "met", 0.0), (0.0119, "undecided", 0.0001), (0.008, "undecided", 0.004), (0.0079, "missed", 0.0041)],
)
def test_a_ceiling_is_met_by_the_upper_bound_and_missed_by_the_lower(
    limit: float, outcome: str, shortfall: float
) -> None:
    found = judged("threshold", limit, cost(0.010, 0.002), "latency_p95_s")
    assert found.outcome == outcome
    assert found.shortfall == pytest.approx(shortfall, abs=1e-12)
    assert found.fraction == pytest.approx(shortfall / limit, abs=1e-9)


@pytest.mark.parametrize(("limit", "outcome"), [(90.0, "met"), (91.0, "undecided"), (110.5, "missed")])
def test_a_floor_is_met_by_the_lower_bound(limit: float, outcome: str) -> None:
    figure = cost(100.0, 10.0, direction="higher")
    found = judged("threshold", limit, figure, "throughput_per_s")
    assert found.outcome == outcome
    assert found.shortfall == pytest.approx(max(0.0, limit - 90.0))


@pytest.mark.parametrize(("limit", "outcome"), [(0.015, "met"), (0.010, "undecided"), (0.004, "missed")])
def test_a_loss_is_the_paired_difference_in_the_bad_direction(limit: float, outcome: str) -> None:
    found = judged("max-degradation", limit, score(0.92, -0.010, 0.005))
    assert found.outcome == outcome
    assert [found.value, found.low, found.high] == pytest.approx([0.010, 0.005, 0.015])


def test_a_loss_of_what_is_better_lower_is_its_rise() -> None:
    figure = score(20.0, 0.5, 0.2, direction="lower", is_log=True)
    found = judged("max-degradation", 0.8, figure, "perplexity", metrics=("perplexity",))
    assert found.outcome == "met"
    assert [found.value, found.high] == pytest.approx([0.5, 0.7])
    assert judged("percent-max-degradation", 3.0, figure, "perplexity").value == pytest.approx(100 * 0.5 / 19.5)


@pytest.mark.parametrize(("limit", "outcome"), [(0.004, "met"), (0.006, "undecided"), (0.02, "missed")])
def test_an_improvement_is_the_paired_difference_in_the_good_direction(limit: float, outcome: str) -> None:
    found = judged("min-improvement", limit, score(0.94, 0.010, 0.005))
    assert found.outcome == outcome
    assert found.shortfall == pytest.approx(max(0.0, limit - 0.005))


@pytest.mark.parametrize(("limit", "outcome"), [(9.0, "met"), (20.0, "undecided"), (30.0, "missed")])
def test_percent_are_of_the_paired_ratio(limit: float, outcome: str) -> None:
    found = judged("percent-min-improvement", limit, cost(8.0, 0.1, 0.8, 1.125), "energy_j_per_inference")
    assert found.outcome == outcome
    assert [found.value, found.low, found.high] == pytest.approx([20.0, 10.0, 100 * (1 - 0.8 / 1.125)])


def test_percent_of_what_is_better_higher_are_the_other_way_round() -> None:
    faster = cost(100.0, 1.0, 1.5, 1.2, direction="higher")
    better = judged("percent-min-improvement", 20, faster, "throughput_per_s")
    assert [better.value, better.low] == pytest.approx([50.0, 25.0])
    worse = judged(
        "percent-max-degradation", 1, faster._replace(ratio=0.9, ratio_low=0.8, ratio_high=1.0), "throughput_per_s"
    )
    assert [worse.value, worse.low, worse.high] == pytest.approx([10.0, 0.0, 20.0])


@pytest.mark.parametrize(("limit", "outcome"), [(0.985, "met"), (0.99, "undecided"), (0.9999, "missed")])
def test_recovery_is_the_share_that_remains(limit: float, outcome: str) -> None:
    assert judged("recovery_threshold", limit, score(0.792, -0.008, 0.004)).outcome == outcome
    # 20 / 20.2: of a perplexity the baseline's over the candidate's
    figure = score(20.2, 0.2, 0.05, direction="lower")
    assert judged("recovery_threshold", 0.5, figure, "perplexity").value == pytest.approx(20 / 20.2)


@pytest.mark.parametrize(
    ("lost", "percent", "outcome"), [(0.0, 99.9, "met"), (-0.005, 99.0, "met"), (-0.005, 99.9, "missed")]
)
def test_mlperf_asks_for_a_share_of_the_reference(lost: float, percent: float, outcome: str) -> None:
    assert judged("mlperf", percent, score(0.9 + lost, lost, 0.0005)).outcome == outcome


def test_a_counted_number_is_judged_exactly() -> None:
    assert judged("threshold", 50e6, counted(50e6), "disk_bytes").outcome == "met"
    assert judged("threshold", 50e6, counted(50e6 + 1), "disk_bytes").outcome == "missed"
    assert judged("percent-min-improvement", 20, counted(80.0, 0.8), "disk_bytes").outcome == "met"
    change = judged("max-degradation", 10, counted(110.0, 1.1), "disk_bytes")
    assert change.outcome == "met"
    assert change.value == pytest.approx(10.0)


def test_a_change_of_a_cost_in_its_unit_takes_the_worst_corner_of_both_intervals() -> None:
    found = judged("max-degradation", 1.0, cost(12.0, 1.0, 1.2, 1.1), "latency_p50_s")
    corners = [value * (1 - 1 / ratio) for value in (11.0, 13.0) for ratio in (1.2 / 1.1, 1.2 * 1.1)]
    assert [found.value, found.low, found.high] == pytest.approx([2.0, min(corners), max(corners)])


def test_a_measured_number_without_an_interval_is_undecided() -> None:
    bare = Figure(0.01, kind="measured")
    found = judged("threshold", 1.0, bare, "latency_p95_s")
    assert (found.outcome, found.shortfall) == ("undecided", None)
    assert "without an interval" in found.reason
    assert "not paired" in judged("percent-max-degradation", 1.0, bare, "latency_p95_s").reason


def test_a_missing_number_is_undecided_with_its_reason() -> None:
    found = judged("threshold", 1.0, Figure(None, reason="no meter"), "energy_j_per_inference")
    assert (found.outcome, found.reason, found.is_missing) == ("undecided", "no meter", True)
    [found] = judge(Goal("mbu", "threshold", 0.5), contender())
    assert found.is_missing
    [found] = judge(Goal("accuracy", "threshold", 0.5), contender(metrics=("perplexity",)))
    assert "perplexity" in found.reason


def test_a_row_with_faults_misses_every_goal() -> None:
    found = judged("threshold", 1.0, cost(0.1, 0.01), "latency_p50_s", faults=("false claim: not int8",))
    assert (found.outcome, found.reason) == ("missed", "false claim: not int8")


def test_an_unsteady_row_leaves_only_what_is_timed_undecided() -> None:
    why = ("it did not reach a steady state",)
    assert judged("threshold", 1.0, cost(0.1, 0.01), "latency_p50_s", unsteady=why).reason == why[0]
    assert judged("threshold", 99, counted(50), "disk_bytes", unsteady=why).outcome == "met"
    assert judged("max-degradation", 0.1, score(0.9, 0.0, 0.01), unsteady=why).outcome == "met"


def test_the_noise_of_the_baseline_widens_a_ratio() -> None:
    quiet = cost(8.0, 0.1, 0.8, 1.01)
    assert judged("percent-min-improvement", 18, quiet, "energy_j_per_inference").outcome == "met"
    noisy = quiet._replace(noise=0.05)
    found = judged("percent-min-improvement", 18, noisy, "energy_j_per_inference")
    assert found.outcome == "undecided"
    assert found.low == pytest.approx(100 * (1 - 0.8 * 1.05))


def test_a_baseline_loses_and_gains_nothing_against_itself() -> None:
    baseline = contender("baseline", {"accuracy": Figure(0.9, direction="higher")})
    for word, limit, outcome in [
        ("max-degradation", 0, "met"),
        ("mlperf", 99.9, "met"),
        ("min-improvement", 1, "missed"),
    ]:
        [found] = judge(goals_of("accuracy", {word: limit})[0][0], baseline)
        assert found.outcome == outcome


def test_nothing_is_compared_with_a_baseline_that_can_not_be_believed() -> None:
    goal = Goal("accuracy", "max-degradation", 0.01)
    [found] = judge(goal, contender("int8", {"accuracy": score(0.9, 0.0, 0.001)}), "implausible: all are '0'")
    assert found.outcome == "undecided"
    assert "implausible" in found.reason


def two_metrics() -> Contender:
    figures = {
        "accuracy": score(0.9, 0.0, 0.001),
        "f1": score(0.7, -0.1, 0.01),
        "perplexity": score(20.0, 0.0, 0.1, direction="lower"),
    }
    return contender("int8", figures, metrics=("perplexity", "f1", "accuracy"))


def test_a_loss_of_accuracy_is_asked_of_every_metric_of_which_more_is_better() -> None:
    found = judge(Goal("accuracy", "max-degradation", 0.01), two_metrics())
    assert [(each.figure, each.outcome) for each in found] == [("f1", "missed"), ("accuracy", "met")]
    assert worst_of(found) == "missed"


def test_a_threshold_of_accuracy_is_asked_of_the_metric_that_is_called_so() -> None:
    found = judge(Goal("accuracy", "threshold", 0.85), two_metrics())
    assert [(each.figure, each.outcome) for each in found] == [("accuracy", "met")]


def test_what_is_not_a_number_never_qualifies() -> None:
    for value in (float("inf"), float("nan")):
        found = judged("threshold", 1.0, cost(value, 0.0), "latency_p50_s")
        assert (found.outcome, found.reason) == ("undecided", "it isn't a finite number")


@given(
    value=st.floats(0.1, 10),
    half=st.floats(0, 5),
    limit=st.floats(0.01, 20),
    direction=st.sampled_from(["lower", "higher"]),
)
def test_the_outcome_is_what_every_value_of_the_interval_says(
    value: float, half: float, limit: float, direction: str
) -> None:
    found = judged("threshold", limit, cost(value, half, direction=direction), "latency_p50_s")
    edges = (value - half, value + half)
    within = [edge <= limit if direction == "lower" else edge >= limit for edge in edges]
    # within the last bits either may be said
    if min(abs(edge - limit) for edge in edges) > 1e-6:
        assert found.outcome == ("met" if all(within) else "undecided" if any(within) else "missed")
        assert (found.shortfall == 0) == all(within)


def in_margin(**changed: Any) -> Judgement:
    figure = score(0.92, -0.01, 0.005)._replace(**changed)
    [found] = judge(Goal("quality", "not-degraded", 0.0, ""), contender("int8", {"accuracy": figure}))
    return found


@pytest.mark.parametrize(
    ("verdict", "margin", "outcome"),
    [
        ("inconclusive", None, "met"),
        ("degraded", None, "missed"),
        ("inconclusive", 0.012, "undecided"),
        ("equivalent", 0.02, "met"),
        ("improved", 0.001, "met"),
        ("degraded", 0.001, "missed"),
    ],
)
def test_where_nothing_is_asked_the_declared_margin_is_and_else_the_verdict(
    verdict: str, margin: float | None, outcome: str
) -> None:
    assert in_margin(verdict=verdict, margin=margin).outcome == outcome


def test_the_shortfall_of_a_margin_is_in_the_unit_of_the_metric() -> None:
    assert in_margin(margin=0.012).shortfall == pytest.approx(0.015 - 0.012)
    of_log = in_margin(
        value=20.2, ratio=1.01, difference=0.2, difference_low=0.1, difference_high=0.5, is_log=True, margin=0.02,
        direction="lower",
    )  # fmt: skip
    assert of_log.shortfall == pytest.approx(0.5 - 0.02 * 20.0)
