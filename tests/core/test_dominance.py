"""Dominance and fronts under uncertainty, against closed forms, hand cases and brute force."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from compressbench.core.dominance import (
    dominance_probability,
    front_probabilities,
    likeliest_dominators,
    membership,
    num_draws_for,
)

Points = list[list[tuple[float, float]]]


def cloud(seed: int, num_rows: int, num_metrics: int, *, ties: bool = False) -> Points:
    """Random rows; with `ties` some values are exact and equal ones are frequent."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4, (num_rows, num_metrics)) if ties else rng.normal(size=(num_rows, num_metrics))
    errors = rng.choice([0.0, 0.0, 0.5], (num_rows, num_metrics)) if ties else rng.uniform(0.1, 0.8, values.shape)
    return [
        [(float(v), float(e)) for v, e in zip(row, spread, strict=True)]
        for row, spread in zip(values, errors, strict=True)
    ]


def is_dominated_by(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    pairs = list(zip(ours, theirs, strict=True))
    return all(b <= a for a, b in pairs) and any(b < a for a, b in pairs)


def brute_front(points: Points, seed: int, num_draws: int) -> list[float]:
    """Draw all, compare all with all."""
    array, rng = np.array(points), np.random.default_rng(seed)
    times = np.zeros(len(points))
    for _ in range(num_draws):
        drawn = array[:, :, 0] + array[:, :, 1] * rng.standard_normal(array.shape[:2])
        times += [not any(is_dominated_by(row, other) for other in drawn) for row in drawn]
    return list(times / num_draws)


def test_dominance_of_exact_rows_is_certain_and_equal_rows_do_not_dominate() -> None:
    def exact(*values: float) -> list[tuple[float, float]]:
        return [(value, 0.0) for value in values]

    assert dominance_probability(exact(1, 2), exact(1, 3)) == 1
    assert dominance_probability(exact(1, 2), exact(1, 2)) == 0
    assert dominance_probability(exact(1, 4), exact(2, 3)) == 0
    assert dominance_probability(exact(1, 2, 3), exact(2, 3, 4)) == 1


def test_dominance_is_a_product_of_normal_probabilities() -> None:
    same = [(0.0, 1.0), (0.0, 2.0)]
    assert dominance_probability(same, same) == pytest.approx(0.25)
    # equal sizes are no obstacle, a larger one is
    assert dominance_probability([(0.0, 1.0), (5.0, 0.0)], [(0.0, 1.0), (5.0, 0.0)]) == pytest.approx(0.5)
    assert dominance_probability([(0.0, 1.0), (6.0, 0.0)], [(9.0, 1.0), (5.0, 0.0)]) == 0
    # P(N(0, 3) <= N(5, 4)) = P(Z <= 1)
    assert dominance_probability([(0.0, 3.0), (0.0, 0.0)], [(5.0, 4.0), (1.0, 0.0)]) == pytest.approx(0.8413447)
    assert dominance_probability([(0.0, 1.0)] * 2, [(100.0, 1.0)] * 2) == 1


@pytest.mark.parametrize("num_metrics", [2, 3, 4])
def test_dominance_is_as_frequent_as_in_draws(num_metrics: int) -> None:
    rng = np.random.default_rng(1)
    for seed in range(5):
        ours, theirs = (np.array(point) for point in cloud(seed, 2, num_metrics))
        a, b = (p[:, 0] + p[:, 1] * rng.standard_normal((20_000, num_metrics)) for p in (ours, theirs))
        share = float((a <= b).all(axis=1).mean())
        found = dominance_probability(ours.tolist(), theirs.tolist())
        assert found == pytest.approx(share, abs=4 * math.sqrt(0.25 / 20_000))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("num_metrics", "num_rows"), [(1, 5), (2, 9), (3, 9), (4, 7)])
def test_the_front_is_that_of_brute_force(num_metrics: int, num_rows: int, ties: bool) -> None:
    for seed in range(3):
        points = cloud(seed, num_rows, num_metrics, ties=ties)
        found = front_probabilities(points, seed=7, num_draws=4000)
        expected = brute_front(points, seed=8, num_draws=1500)
        assert found == pytest.approx(expected, abs=4.5 * math.sqrt(0.25 / 4000 + 0.25 / 1500))


def test_two_rows_on_the_front_have_the_closed_form() -> None:
    points = [[(0.0, 0.3), (0.1, 0.2)], [(0.2, 0.4), (0.0, 0.0)]]
    found = front_probabilities(points, num_draws=40_000)
    expected = [1 - dominance_probability(points[1], points[0]), 1 - dominance_probability(points[0], points[1])]
    assert found == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 40_000))
    # of equal exact sizes the other metric decides alone, whichever comes first
    for tie in ([(0.0, 0.5), (5.0, 0.0)], [(5.0, 0.0), (0.0, 0.5)]):
        assert front_probabilities([tie, tie], num_draws=40_000) == pytest.approx([0.5, 0.5], abs=0.01)


def test_exact_rows_are_decided_exactly() -> None:
    points = [[(float(x), 0.0), (float(y), 0.0)] for x, y in [(1, 4), (2, 2), (2, 3), (4, 1), (4, 1), (1, 5), (3, 2)]]
    assert front_probabilities(points) == [1, 1, 0, 1, 1, 0, 0]
    # whatever else is uncertain
    assert front_probabilities([*points, [(9.0, 0.5), (0.5, 0.2)]])[:3] == [1, 1, 0]
    assert front_probabilities([[(0.0, 0.0), (1.0, 0.0)], [(-0.0, 0.0), (1.0, 0.0)]]) == [1, 1]


def test_a_surely_dominated_row_is_not_drawn_and_changes_nothing_for_others() -> None:
    points = cloud(3, 12, 2)
    hopeless = [[(50.0, 0.5), (50.0, 0.5)], [(50.0, 0.0), (60.0, 0.0)]]
    alone, together = front_probabilities(points), front_probabilities([*points, *hopeless])
    assert together[:-2] == alone
    assert together[-2:] == [0.0, 0.0]
    # what one row leaves is an upper bound
    nearly = front_probabilities([[(0.0, 0.0), (0.0, 0.0)], [(4.0, 1.0), (4.0, 1.0)]])
    assert nearly[0] == 1
    assert nearly[1] == pytest.approx(1 - dominance_probability([(0.0, 0.0)] * 2, [(4.0, 1.0)] * 2), abs=1e-12)


def test_the_same_seed_gives_the_same_and_more_draws_come_nearer() -> None:
    points = cloud(4, 30, 3)
    assert front_probabilities(points, seed=1) == front_probabilities(points, seed=1)
    assert front_probabilities(points, seed=1) != front_probabilities(points, seed=2)
    assert [num_draws_for(*shape) for shape in [(5, 2), (1000, 2), (10**6, 2), (500, 3)]] == [4000, 2000, 400, 1000]


@pytest.mark.parametrize("num_metrics", [2, 3])
def test_thousands_of_rows_still_have_the_best_of_each_metric_on_the_front(num_metrics: int) -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(3000, num_metrics))
    values[17, 0], values[18, 1] = -9, -9
    points = [[(float(v), 0.1) for v in row] for row in values]
    found = front_probabilities(points)
    exact = front_probabilities([[(v, 0.0) for v, _ in point] for point in points])
    assert found[17] == found[18] == 1
    # rows deep behind the exact front can't be on this one
    behind = [
        at for at, row in enumerate(values) if any((other <= row - 0.8).all() for other in values[np.array(exact) == 1])
    ]
    assert len(behind) > 1500
    assert max(found[at] for at in behind) < 0.001


def test_the_likeliest_dominator_is_named_with_its_probability() -> None:
    points = [
        [(0.0, 0.1), (0.0, 0.1)],  # best in all
        [(3.0, 0.1), (3.0, 0.1)],  # second
        [(6.0, 0.1), (6.0, 0.1)],  # behind both: the one on the front is named
        [(-5.0, 0.1), (9.0, 0.1)],  # on the front
        [(0.1, 0.1), (0.0, 0.1)],  # perhaps behind the first
    ]
    front = front_probabilities(points)
    found = likeliest_dominators(points, front)
    chances = [dominance_probability(points[by], points[at]) for by, at in [(4, 0), (0, 1), (0, 2), (0, 4)]]
    expected = [(4, chances[0]), (0, 1.0), (0, 1.0), None, (0, chances[3])]
    assert chances[1:3] == [1, 1]
    assert found == expected
    assert likeliest_dominators([[(1.0, 0.0), (2.0, 0.0)], [(2.0, 0.0), (1.0, 0.0)]], [1.0, 1.0]) == [None, None]
    assert likeliest_dominators([], []) == []


def test_the_likeliest_dominator_is_that_of_brute_force() -> None:
    for seed in range(5):
        points = cloud(seed, 40, 2, ties=seed % 2 == 1)
        found = likeliest_dominators(points, front_probabilities(points))
        for at, each in enumerate(found):
            chances = [dominance_probability(other, points[at]) for other in points]
            chances[at] = 0
            assert (each is None) == (max(chances) < 1e-4)
            assert each is None or (each.probability == chances[each.at] >= max(chances) - 0.0101)


def test_membership_has_three_words() -> None:
    assert [membership(p) for p in (1, 0.95, 0.9499, 0.5, 0.05, 0.0499, 0)] == [
        "on the front", "on the front", "possibly", "possibly", "possibly", "dominated", "dominated",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "points", [[[(math.nan, 0.0)]], [[(0.0, -1.0)]], [[(0.0, math.inf)]], [[]], [[(0.0, 0.0)], [(0.0, 0.0)] * 2]]
)
def test_what_is_no_number_is_refused(points: Points) -> None:
    with pytest.raises(ValueError, match="points need"):
        front_probabilities(points)
    assert front_probabilities([]) == []
