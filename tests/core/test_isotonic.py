"""Isotonic regression against scipy's, and the pair of rows that most contradicts monotony against brute force."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from scipy.optimize import isotonic_regression

from compressbench.core.isotonic import isotonic, monotony
from compressbench.core.returns import Point


def test_it_is_scipys_isotonic_regression() -> None:
    draw = random.Random(1)
    for _ in range(300):
        number = draw.randint(1, 12)
        values = [round(draw.gauss(0, 1), draw.choice([1, 6])) for _ in range(number)]
        weights = [draw.uniform(0.1, 10) for _ in range(number)]
        oracle = isotonic_regression(values, weights=weights).x
        assert isotonic(values, weights) == pytest.approx(list(oracle), abs=1e-9)


def test_what_never_falls_stays_as_it_is() -> None:
    assert isotonic([1.0, 1.0, 2.0, 5.0], [1, 2, 3, 4]) == [1.0, 1.0, 2.0, 5.0]
    assert isotonic([], []) == []


def test_rows_in_any_order_give_the_fit_of_their_costs() -> None:
    draw = random.Random(2)
    for _ in range(100):
        points = [Point(draw.uniform(1, 9), draw.gauss(0, 1), 0, draw.uniform(0.1, 1)) for _ in range(8)]
        found = monotony(points)
        order = sorted(range(8), key=lambda at: points[at].cost)
        assert all(found.fitted[a] <= found.fitted[b] for a, b in pairwise(order))
        oracle = isotonic_regression(
            [points[at].quality for at in order], weights=[points[at].quality_error ** -2 for at in order]
        ).x
        assert [found.fitted[at] for at in order] == pytest.approx(list(oracle))


def test_rows_of_one_cost_are_pooled_and_are_no_pair() -> None:
    found = monotony([Point(1, 0.8, 0, 0.1), Point(1, 0.6, 0, 0.1), Point(2, 0.9, 0, 0.1)])
    assert found.fitted == pytest.approx((0.7, 0.7, 0.9))
    assert (found.num_pairs, found.worst, found.num_shown) == (2, None, 0)


def test_the_worst_pair_is_the_one_that_brute_force_finds() -> None:
    draw = random.Random(3)
    for _ in range(100):
        points = [Point(cost, draw.gauss(0, 1), 0, 0.2) for cost in draw.sample(range(1, 50), 7)]
        falls = [(b.quality - a.quality, a.cost, b.cost) for a in points for b in points if a.cost < b.cost]
        least = min(falls)
        found = monotony(points).worst
        if least[0] >= 0:
            assert found is None
        else:
            assert found is not None
            assert (found.gain.value, points[found.start].cost, points[found.end].cost) == pytest.approx(least)


def test_level_rows_are_seldom_said_to_contradict_monotony() -> None:
    draw = random.Random(4)
    said = sum(
        monotony([Point(cost, draw.gauss(0, 0.01), 0, 0.01) for cost in range(1, 9)]).num_shown > 0 for _ in range(1000)
    )
    assert said / 1000 < 0.05
    assert monotony([Point(1, 0.9, 0, 0.01), Point(2, 0.5, 0, 0.01)]).num_shown == 1


def test_a_baseline_without_an_error_weighs_as_the_surest_other() -> None:
    found = monotony([Point(1, 0.9, 0, 0.1), Point(2, 0.7, 0, 0.0)])
    assert found.fitted == pytest.approx((0.8, 0.8))
    assert monotony([Point(1, 0.9), Point(2, 0.7)]).fitted == pytest.approx((0.8, 0.8))
