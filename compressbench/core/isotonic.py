"""A check of curves that assumes no form: isotonic regression, and the pair of rows that most contradicts monotony.

The weighted least squares among all that never fall, by pooling neighbours that do (Barlow et al. 1972). Pure Python.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from compressbench.core.curve_fits import errors_above_zero
from compressbench.core.ranking import joint_z
from compressbench.core.returns import Point, Step, gain_between, step_between


class Monotony(NamedTuple):
    """`fitted` are the qualities of the isotonic fit, in the order of the points. `worst` is the pair in which the dearer
    row loses most, None if none loses; its gain's interval is simultaneous with that of all `num_pairs` pairs, at 95 %.
    `num_shown` pairs are shown to contradict monotony so.
    """

    fitted: tuple[float, ...]
    worst: Step | None
    num_pairs: int
    num_shown: int


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing sequence with the least weighted sum of squares to `values`. Weights are above 0."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(values, weights, strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] >= pool[0]:
            mean, before, count = pools.pop()
            total = before + pool[1]
            pool = ((mean * before + pool[0] * pool[1]) / total, total, count + pool[2])
        pools.append(pool)
    return [mean for mean, _, count in pools for _ in range(count)]


def levels_of(points: Sequence[Point]) -> tuple[float, ...]:
    """The qualities of the isotonic fit, in the order of the points. Rows of the same cost count as one, whose quality is
    their weighted mean.
    """
    weight = [1 / error**2 for error in errors_above_zero([point.quality_error for point in points])]
    at_cost: dict[float, list[int]] = {}
    for at in sorted(range(len(points)), key=lambda at: points[at].cost):
        at_cost.setdefault(points[at].cost, []).append(at)
    totals = [sum(weight[at] for at in together) for together in at_cost.values()]
    means = [
        sum(weight[at] * points[at].quality for at in together) / total
        for together, total in zip(at_cost.values(), totals, strict=True)
    ]
    level = dict(zip(at_cost, isotonic(means, totals), strict=True))
    return tuple(level[point.cost] for point in points)


def monotony(points: Sequence[Point]) -> Monotony:
    """Whether the dearer is never worse; rows of the same cost are no pair."""
    same = Counter(point.cost for point in points)
    num_pairs = math.comb(len(points), 2) - sum(math.comb(number, 2) for number in same.values())
    z = joint_z(max(1, num_pairs))
    worst = min(_falls(points), key=lambda pair: points[pair[1]].quality - points[pair[0]].quality, default=None)
    return Monotony(
        fitted=levels_of(points),
        worst=None if worst is None else step_between(points, *worst, z=z),
        num_pairs=num_pairs,
        num_shown=sum(gain_between(points, *pair, z).high < 0 for pair in _falls(points)),
    )


def _falls(points: Sequence[Point]) -> Iterator[tuple[int, int]]:
    """Pairs in which the dearer row is worse, the cheaper one first: of many rows there are too many pairs to keep."""
    order = sorted(range(len(points)), key=lambda at: points[at].cost)
    for start, end in combinations(order, 2):
        if points[end].quality < points[start].quality and points[start].cost < points[end].cost:
            yield start, end
