"""The detector behind the warm-up: MSER by brute force, Kendall by scipy, and verdicts on series whose drift is known."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from compressbench.measure import drift
from compressbench.measure.drift import DriftRule, judge, kendall, medians_of, mser_truncation

RULE = DriftRule()


def noisy(count: int, sd: float, draw: random.Random) -> list[float]:
    return [math.exp(sd * draw.gauss(0, 1)) for _ in range(count)]


def ar1(count: int, sd: float, phi: float, draw: random.Random) -> list[float]:
    values = [draw.gauss(0, 1)]
    for _ in range(count - 1):
        values.append(phi * values[-1] + math.sqrt(1 - phi * phi) * draw.gauss(0, 1))
    return [math.exp(sd * each) for each in values]


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=60))
@settings(max_examples=80, deadline=None)
def test_mser_minimizes_the_squared_standard_error_over_the_first_half(blocks: list[int]) -> None:
    scores = [float(np.var(blocks[start:]) / (len(blocks) - start)) for start in range(len(blocks) // 2 + 1)]
    found = mser_truncation(blocks)
    assert found <= len(blocks) // 2
    assert scores[found] == pytest.approx(min(scores), rel=1e-9, abs=1e-9)


def test_mser_cuts_a_step_where_it_is_and_nothing_off_a_constant() -> None:
    assert mser_truncation([9.0] * 7 + [1.0, 1.1] * 10) == 7
    assert mser_truncation([1.0] * 30) == 0
    assert mser_truncation([9.0] * 20 + [1.0] * 10) <= 15


@given(st.lists(st.integers(0, 30), min_size=3, max_size=50))
@settings(max_examples=80, deadline=None)
def test_kendalls_tau_and_its_p_are_scipys(values: list[int]) -> None:
    found = kendall(values)
    if len(set(values)) == 1:
        assert found == (0.0, 1.0)
        return
    expected = stats.kendalltau(range(len(values)), values, method="asymptotic")
    assert found.tau == pytest.approx(expected.statistic, abs=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_resembling_neighbours_make_kendalls_test_more_careful() -> None:
    plain, careful = kendall(range(12)), kendall(range(12), inflation=4.0)
    assert plain.tau == careful.tau == 1.0
    score = 66 / math.sqrt(12 * 11 * 29 / 18)
    assert plain.p_value == pytest.approx(2 * stats.norm.sf(score))
    assert careful.p_value == pytest.approx(2 * stats.norm.sf(score / 2))


def test_medians_are_of_neighbours_and_the_oldest_are_left_over() -> None:
    assert medians_of([99, 98, 1, 2, 9, 4, 5, 60], 3) == [2, 5]
    assert medians_of([3, 1, 2], 1) == [3, 1, 2]


@pytest.mark.parametrize("count", [5, 10, 49, 50, 200, 999])
def test_a_constant_has_no_drift_and_everything_is_kept(count: int) -> None:
    found = judge([0.01] * count, 1, RULE)
    assert (found.drift, found.resolution, found.change, found.num_kept) == ("", 0.0, 0.0, count)
    assert found.typical == 0.01


def test_the_beginning_is_cut_off_in_blocks_of_five_and_is_no_drift() -> None:
    draw = random.Random(1)
    found = judge([5 * each for each in noisy(43, 0.02, draw)] + noisy(157, 0.02, draw), 1, RULE)
    assert found.drift == ""
    assert found.num_kept == 155
    assert found.typical == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(("slope", "word"), [(0.15, "slower"), (-0.15, "faster")])
def test_a_drift_is_named_with_its_direction_its_size_and_the_limit(slope: float, word: str) -> None:
    draw = random.Random(2)
    series = [(1 + slope * index / 200) * each for index, each in enumerate(noisy(200, 0.01, draw))]
    found = judge(series, 1, RULE)
    assert found.drift == (
        f"the last {found.num_kept} calls became {abs(found.change):.1%} {word} from their first half to their second "
        f"(limit {max(0.01, abs(found.change) - 1):.1%})"
    )
    assert found.change == pytest.approx(slope / 4, rel=0.25)


def test_a_step_near_the_end_is_drift_or_leaves_the_look_blunt() -> None:
    draw = random.Random(2)
    for begin in (120, 140, 160):
        found = judge(noisy(begin, 0.01, draw) + [1.04 * each for each in noisy(200 - begin, 0.01, draw)], 1, RULE)
        assert found.drift or found.resolution > RULE.resolution or found.num_kept < 20, begin


def test_what_comes_before_a_step_in_the_first_half_is_the_beginning() -> None:
    draw = random.Random(2)
    found = judge(noisy(90, 0.01, draw) + [0.96 * each for each in noisy(110, 0.01, draw)], 1, RULE)
    assert found.drift == ""
    assert 95 <= found.num_kept <= 110


def test_the_same_step_in_noise_that_hides_it_is_no_drift_but_the_look_was_not_sharp() -> None:
    draw = random.Random(3)
    found = judge(noisy(100, 0.3, draw) + [1.04 * each for each in noisy(100, 0.3, draw)], 1, RULE)
    assert found.drift == ""
    assert found.resolution > 0.1


def test_a_certain_trend_counts_from_half_the_tolerance_on() -> None:
    draw = random.Random(4)

    def rising(per_cent: float) -> list[float]:
        return [(1 + per_cent / 100 * index / 400) * each for index, each in enumerate(noisy(400, 0.002, draw))]

    # MSER cuts half of a slope off, and from half to half of the rest it is a quarter of what it is from end to end
    assert judge(rising(1.2), 1, RULE).drift == ""
    assert "Kendall's tau 0." in judge(rising(3.0), 1, RULE).drift
    assert "(limit 1.0%)" in judge(rising(6.0), 1, RULE).drift


@pytest.mark.parametrize("width", [5, 320])
def test_values_that_are_medians_already_count_for_their_calls(width: int) -> None:
    draw = random.Random(5)
    found = judge(noisy(200, 0.02, draw), width, RULE)
    assert found.drift == ""
    assert found.num_kept == 200 * width


@pytest.mark.parametrize(("sd", "is_forgiven"), [(0.03, True), (0.1, True), (0.6, False)])
def test_a_warm_up_that_mser_leaves_in_is_forgiven_if_the_second_half_is_sharply_steady(
    sd: float, is_forgiven: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An excess of 60 % that fades over 300 calls: the second half of 700 does not drift, but noise can hide that."""
    draw = random.Random(6)
    series = [(1 + 0.6 * max(0.0, 1 - index / 300)) * each for index, each in enumerate(noisy(700, sd, draw))]
    monkeypatch.setattr(drift, "mser_truncation", lambda blocks: 0)
    found = judge(series, 1, RULE)
    assert (found.drift == "", found.num_kept) == (is_forgiven, 350 if is_forgiven else 700)


def test_what_is_judged_is_at_least_five_values_and_at_most_32_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge([9.0, 9.0, 9.0, 1.0, 1.0, 1.0], 1, RULE).num_kept == 5
    lengths: list[int] = []

    def watched(values: list[float], inflation: float) -> drift.Kendall:
        lengths.append(len(values))
        return kendall(values, inflation)

    monkeypatch.setattr(drift, "kendall", watched)
    for count in (5, 20, 33, 100, 999):
        judge(noisy(count, 0.05, random.Random(1)), 1, RULE)
    assert lengths[0] == 5
    assert max(lengths) <= 32


def test_a_drift_that_goes_on_is_not_forgiven() -> None:
    draw = random.Random(7)
    series = [(1 + 0.2 * index / 700) * each for index, each in enumerate(noisy(700, 0.03, draw))]
    assert "slower" in judge(series, 1, RULE).drift


def test_calls_too_short_for_the_clock_are_not_called_steady() -> None:
    assert "too short for the clock" in judge([0.0] * 50, 1, RULE).drift


@pytest.mark.parametrize(
    ("kind", "most"), [("independent", 0.03), ("AR(1) 0.5", 0.03), ("AR(1) 0.9", 0.08), ("outliers", 0.03)]
)
def test_steady_noise_is_rarely_taken_for_drift(kind: str, most: float) -> None:
    """One look; a warm-up takes several. Without a care for resembling neighbours, AR(1) 0.9 gives 12 %."""
    draw, num_series, alarms = random.Random(8), 300, 0
    for _ in range(num_series):
        if kind == "outliers":
            series = [1 + 0.2 * (draw.paretovariate(1.5) - 1) for _ in range(300)]
        else:
            series = ar1(300, 0.1, 0.0 if kind == "independent" else float(kind.split()[1]), draw)
        alarms += bool(judge(series, 1, RULE).drift)
    assert alarms / num_series <= most


def test_the_resolution_is_the_change_that_is_seen_in_nine_of_ten_series(monkeypatch: pytest.MonkeyPatch) -> None:
    # a step in the middle is what MSER takes for the end of the beginning
    monkeypatch.setattr(drift, "mser_truncation", lambda blocks: 0)
    draw, num_series, seen = random.Random(9), 300, 0
    resolution = float(np.median([judge(noisy(200, 0.05, draw), 1, RULE).resolution for _ in range(50)]))
    for _ in range(num_series):
        series = noisy(200, 0.05, draw)
        series[100:] = [(1 + resolution) * each for each in series[100:]]
        seen += bool(judge(series, 1, RULE).drift)
    assert 0.85 <= seen / num_series <= 0.98
