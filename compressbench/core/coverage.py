"""The curve of coverage, c(k) = exp(a k^b) with a, b < 0 (Brown et al. 2024, arXiv:2407.21787), fitted to pass@k."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from compressbench.core.statistics import Interval

NUM_DRAWS = 400
MIN_POINTS = 3


class CoverageFit(NamedTuple):
    """`exponent` is b: how fast the logarithm of coverage shrinks with samples; -1 would halve it with every doubling.

    Its interval is the percentile bootstrap over questions, 95 %. `largest_residual` is the largest |c(k) - fit|.
    """

    factor: float
    exponent: Interval
    largest_residual: float
    num_points: int


def coverage_at(factor: float, exponent: float, k: float) -> float:
    return math.exp(factor * k**exponent)


def fit_coverage(curves: Sequence[Sequence[float]], ks: Sequence[int], seed: int = 0) -> CoverageFit | str:
    """From pass@k of every question at each of `ks`; a sentence if the points don't give a curve.

    ln(-ln c) is a line in ln k. Points are weighted by what their binomial error is there; those at 0 or 1 have no place.
    """
    # questions with the same curve are counted, not kept apart
    kinds = list(dict.fromkeys(map(tuple, curves)))
    at_of = {kind: at for at, kind in enumerate(kinds)}
    members = [at_of[tuple(curve)] for curve in curves]
    means = _means(kinds, Counter(members), len(members))
    line = _line(means, ks)
    if line is None:
        return f"fewer than {MIN_POINTS} numbers of samples have a coverage between 0 and 1"
    chance = random.Random(seed)  # noqa: S311 -- statistics, no secret
    drawn = []
    for _ in range(NUM_DRAWS):
        counts = Counter(chance.choices(members, k=len(members)))
        found = _line(_means(kinds, counts, len(members)), ks)
        drawn += [] if found is None else [found[1]]
    if len(drawn) < NUM_DRAWS / 2:
        return "most bootstrap draws have no curve"
    drawn.sort()
    residual = max(abs(mean - coverage_at(*line[:2], k)) for mean, k in zip(means, ks, strict=True))
    low, high = drawn[int(0.025 * len(drawn))], drawn[math.ceil(0.975 * len(drawn)) - 1]
    return CoverageFit(line[0], Interval(line[1], low, high), residual, line[2])


def _means(kinds: Sequence[Sequence[float]], counts: Counter[int], total: int) -> list[float]:
    return [sum(kinds[kind][at] * number for kind, number in counts.items()) / total for at in range(len(kinds[0]))]


def _line(means: Sequence[float], ks: Sequence[int]) -> tuple[float, float, int] | None:
    """a, b and the number of points; None below MIN_POINTS."""
    points = []
    for mean, k in zip(means, ks, strict=True):
        if 1e-9 < mean < 1 - 1e-9:
            weight = (mean * math.log(mean)) ** 2 / (mean * (1 - mean))
            points.append((math.log(k), math.log(-math.log(mean)), weight))
    if len(points) < MIN_POINTS:
        return None
    total = sum(weight for _, _, weight in points)
    centre_x = sum(weight * x for x, _, weight in points) / total
    centre_y = sum(weight * y for _, y, weight in points) / total
    square = sum(weight * (x - centre_x) ** 2 for x, _, weight in points)
    slope = sum(weight * (x - centre_x) * (y - centre_y) for x, y, weight in points) / square
    return -math.exp(centre_y - slope * centre_x), slope, len(points)
