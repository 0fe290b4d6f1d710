"""Diminishing returns along points: fronts, marginal gains with their coverage, the stop, the knee, and laws."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from compressbench.core.returns import (
    Point,
    elasticity,
    front_of_points,
    gain_between,
    knee,
    ratio_interval,
    returns_of,
    step_between,
)


def log_curve(seed: int, *, error: float = 0.004, number: int = 12) -> list[Point]:
    """Quality rises with the logarithm of cost up to the sixth row and is level after it."""
    draw = random.Random(seed)
    costs = [2.0**place for place in range(number)]
    true = [0.6 + 0.04 * min(place, 6) for place in range(number)]
    return [Point(cost, level + draw.gauss(0, error), 0.0, error) for cost, level in zip(costs, true, strict=True)]


def drawn(draw: random.Random, number: int = 10) -> list[Point]:
    return [
        Point(draw.uniform(1, 10), draw.uniform(0, 1), draw.choice([0.0, 0.2]), draw.uniform(0.005, 0.1))
        for _ in range(number)
    ]


def test_the_front_is_what_brute_force_finds() -> None:
    draw = random.Random(1)
    for _ in range(200):
        points = [Point(draw.randint(1, 6), draw.randint(1, 6)) for _ in range(8)]
        best = {
            (a.cost, a.quality)
            for a in points
            if not any((b.cost <= a.cost and b.quality >= a.quality) and b[:2] != a[:2] for b in points)
        }
        found = [(points[at].cost, points[at].quality) for at in front_of_points(points)]
        assert set(found) == best
        assert found == sorted(best)


def test_the_stop_on_a_log_curve_is_within_one_step_of_where_it_levels_out() -> None:
    stops = [math.log2(points[returns_of(points).stop].cost) for points in map(log_curve, range(100))]
    assert sum(abs(stop - 6) <= 1 for stop in stops) >= 95
    exact = log_curve(0, error=1e-9)
    assert exact[returns_of(exact, 1e-6).stop].cost == 2.0**6


def test_wherever_a_log_curve_saturates_the_stop_is_within_one_step_of_it() -> None:
    """q = a + b ln E up to a place, level after it; a step before it is worth 4 to 12 standard errors of a difference."""
    hits = 0
    for seed in range(400):
        draw = random.Random(seed)
        place, error = draw.randint(1, 9), draw.uniform(0.001, 0.01)
        ratio, start = draw.uniform(1.3, 3.0), draw.uniform(0.1, 100.0)
        step = draw.uniform(4, 12) * math.sqrt(2) * error
        slope = step / math.log(ratio)
        costs = [start * ratio**at for at in range(12)]
        true = [0.5 + slope * math.log(min(cost, costs[place]) / start) for cost in costs]
        points = [Point(c, q + draw.gauss(0, error), 0.0, error) for c, q in zip(costs, true, strict=True)]
        hits += abs(returns_of(points).stop - place) <= 1
    assert hits / 400 >= 0.95


def test_the_knee_on_a_log_curve_is_the_point_farthest_from_the_chord() -> None:
    costs = [float(cost) for cost in range(1, 101)]
    points = [Point(cost, math.log(cost)) for cost in costs]
    # where the slope is that of the chord
    true = 99 / math.log(100)
    at = knee(points, returns_of(points).front)
    assert at is not None
    assert abs(costs[at] - true) <= 1
    assert knee([Point(cost, cost**2) for cost in costs], list(range(100))) is None
    assert knee(points[:2], [0, 1]) is None


def test_the_first_step_whose_interval_holds_zero_ends_it() -> None:
    points = [Point(1, 0.5, 0, 0.01), Point(2, 0.6, 0, 0.01), Point(4, 0.61, 0, 0.01), Point(8, 0.62, 0, 0.01)]
    found = returns_of(points)
    assert (found.first_unshown, found.stop, found.jumps) == (1, 1, ())
    assert [step.is_shown for step in found.steps] == [True, False, False]
    assert [step.end for step in found.beyond] == [2, 3]


def test_a_gain_that_is_sure_but_too_small_ends_it() -> None:
    points = [Point(1, 0.5, 0, 1e-4), Point(2, 0.6, 0, 1e-4), Point(4, 0.605, 0, 1e-4)]
    assert returns_of(points).stop == 2
    assert not returns_of(points).beyond
    found = returns_of(points, 0.01)
    assert (found.first_unshown, found.stop) == (1, 1)
    assert found.steps[1].gain.low > 0


def test_many_small_steps_do_not_hide_a_large_gain() -> None:
    points = [Point(1 + place, 0.5 + 0.01 * place, 0, 0.01) for place in range(11)]
    found = returns_of(points)
    assert found.first_unshown == 0
    assert not any(step.is_shown for step in found.steps)
    # the first row that all later ones together, at 95 %, show to be better: z = 2.80 for ten
    assert (found.jumps[0].start, found.jumps[0].end) == (0, 4)
    # and from there no two that are left differ so much that it is shown
    assert found.stop == 8


def test_with_no_true_gain_a_later_row_is_seldom_said_to_be_better() -> None:
    draw = random.Random(5)
    wrong = 0
    for _ in range(2000):
        cheapest = Point(1, draw.gauss(0, 1), 0, 1)
        # fixed rows, not chosen for being on a front
        later = [Point(2 + place, draw.gauss(0, 1), 0, 1) for place in range(5)]
        found = returns_of([cheapest, *later])
        wrong += found.stop != 0
    assert wrong / 2000 < 0.05


@pytest.mark.parametrize("cost_error", [0.0, 0.25])
def test_marginal_gains_are_covered_as_often_as_they_say(cost_error: float) -> None:
    draw, hits, num_bounded = random.Random(3), 0, 0
    for _ in range(4000):
        cheap = Point(draw.gauss(2, cost_error), draw.gauss(0.80, 0.01), cost_error, 0.01)
        dear = Point(draw.gauss(4, cost_error), draw.gauss(0.83, 0.01), cost_error, 0.01)
        found = step_between([cheap, dear], 0, 1).per_cost
        if found.low is not None and found.high is not None:
            num_bounded += 1
            hits += found.low <= 0.03 / 2 <= found.high
        else:
            hits += 1
    assert num_bounded > 3900
    assert hits / 4000 == pytest.approx(0.95, abs=0.02)


def test_fiellers_interval_is_where_the_difference_is_within_its_error() -> None:
    found = ratio_interval(0.03, 0.01, 2.0, 0.3)
    assert found.low is not None
    assert found.high is not None
    for bound in (found.low, found.high):
        assert abs(0.03 - bound * 2.0) == pytest.approx(1.959963984540054 * math.hypot(0.01, bound * 0.3))
    assert ratio_interval(0.03, 0.01, 2.0, 0.0) == pytest.approx((0.015, 0.015 - 0.0098, 0.015 + 0.0098), abs=1e-6)
    assert ratio_interval(0.03, 0.01, 0.5, 0.3)[1:] == (None, None)


def test_the_order_of_the_points_and_the_unit_of_cost_change_nothing() -> None:
    draw = random.Random(7)
    for _ in range(200):
        points = drawn(draw)
        found = returns_of(points, 0.02)
        shuffled = draw.sample(points, len(points))
        again = returns_of(shuffled, 0.02)
        assert shuffled[again.stop] == points[found.stop]
        assert [shuffled[at] for at in again.front] == [points[at] for at in found.front]
        in_kwh = [p._replace(cost=p.cost / 3.6e6, cost_error=p.cost_error / 3.6e6) for p in points]
        other = returns_of(in_kwh, 0.02)
        assert (other.front, other.stop, other.first_unshown) == (found.front, found.stop, found.first_unshown)
        for ours, theirs in zip(found.steps, other.steps, strict=True):
            assert theirs.per_cost.value == pytest.approx(3.6e6 * ours.per_cost.value)
            assert elasticity(points, ours) == pytest.approx(elasticity(in_kwh, theirs))


def test_a_dominated_point_changes_nothing() -> None:
    draw = random.Random(8)
    for _ in range(200):
        points = drawn(draw)
        found = returns_of(points)
        victim = points[draw.choice(found.front)]
        worse = Point(victim.cost * 1.01, victim.quality - 0.01, 0.0, 0.001, "another group")
        assert returns_of([*points, worse]) == found


def test_between_groups_the_own_errors_count() -> None:
    ours = Point(1, 0.5, 0, 0.01, "family", 0, 0.03)
    rival = Point(2, 0.7, 0.1, 0.02, "rivals", 0.1, 0.04)
    assert gain_between([ours, rival], 0, 1).high == pytest.approx(0.2 + 1.959963984540054 * 0.05)
    assert gain_between([ours, ours], 0, 1).high == pytest.approx(1.959963984540054 * math.hypot(0.01, 0.01))


def test_elasticity_is_the_slope_in_logarithms() -> None:
    points = [Point(1, 2, 0, 0.02), Point(4, 4, 0, 0.04)]
    (step,) = returns_of(points).steps
    found = elasticity(points, step)
    assert found is not None
    assert found.value == pytest.approx(0.5)
    draw = np.random.default_rng(0)
    ratios = np.log(draw.normal(4, 0.04, 20_000) / draw.normal(2, 0.02, 20_000)) / math.log(4)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(ratios, (0.025, 0.975))), abs=5e-4)
    logs = elasticity([point._replace(quality=math.log(point.quality)) for point in points],
                      step._replace(gain=step.gain._replace(value=math.log(2))), is_log=True)  # fmt: skip
    assert logs is not None
    assert logs.value == pytest.approx(0.5)
    below = [Point(1, -2), Point(4, -1)]
    assert elasticity(below, returns_of(below).steps[0]) is None


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        returns_of([Point(1, math.nan)])
    with pytest.raises(ValueError, match="at least one"):
        returns_of([])
