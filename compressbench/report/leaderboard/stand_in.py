"""Fronts until core/dominance.py is here."""

from __future__ import annotations

from collections.abc import Sequence


def front_probabilities(points: Sequence[Sequence[tuple[float, float]]], seed: int = 0) -> list[float]:
    order = sorted(range(len(points)), key=lambda at: tuple(value for value, _ in points[at]))
    best = float("inf")
    found = [0.0] * len(points)
    for at in order:
        cost = points[at][1][0]
        if cost < best:
            found[at], best = 1.0, cost
    return found
