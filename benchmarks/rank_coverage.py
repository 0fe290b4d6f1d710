"""How often do all rank intervals of a table hold the true ranks, and how wide are they?

    OMP_NUM_THREADS=1 python benchmarks/rank_coverage.py            # about 2 minutes
    OMP_NUM_THREADS=1 python benchmarks/rank_coverage.py 500        # fewer trials

Simulated rows with known means. A trial holds if the interval of every row encloses all ranks that it may claim: from one
more than how many are truly better to all but those truly worse. More than 200 rows are ranked by joint intervals; beside
them stand those of LMArena's way, in which intervals of 95 % each must not overlap.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from compressbench.core.ranking import MOST_PAIRED, RankInterval, rank_intervals

Array = np.ndarray[Any, Any]
Truth = Callable[[np.random.Generator, int], tuple[Array, Array]]
Rank = Callable[[Array, Array], list[RankInterval]]


class Outcome(NamedTuple):
    """Shares of tables and of rows that hold, with the mean width of an interval in ranks."""

    tables: float
    rows: float
    width: float


def equal(_: np.random.Generator, num_rows: int) -> tuple[Array, Array]:
    return np.zeros(num_rows), np.ones(num_rows)


def pairs(_: np.random.Generator, num_rows: int) -> tuple[Array, Array]:
    """Two by two equal, neighbours two standard errors apart."""
    return 2.0 * (np.arange(num_rows) // 2), np.ones(num_rows)


def spread(rng: np.random.Generator, num_rows: int) -> tuple[Array, Array]:
    """Normal means ten times as far apart as the errors, which differ by a factor of up to ten."""
    return rng.normal(0, 10, num_rows), 10 ** rng.uniform(-0.5, 0.5, num_rows)


def partly_exact(rng: np.random.Generator, num_rows: int) -> tuple[Array, Array]:
    """The same with every third row exact."""
    means, errors = spread(rng, num_rows)
    errors[::3] = 0
    return means, errors


def true_ranks(means: Array) -> tuple[Array, Array]:
    ordered = np.sort(means)
    return 1.0 + np.searchsorted(ordered, means, "left"), 0.0 + np.searchsorted(ordered, means, "right")


def judged(found: Sequence[RankInterval], means: Array) -> Array:
    low, high = true_ranks(means)
    intervals = np.array(found)
    return (intervals[:, 0] <= low) & (high <= intervals[:, 1])


def by_single_intervals(values: Array, errors: Array) -> list[RankInterval]:
    lows, highs = np.sort(values - 1.96 * errors), np.sort(values + 1.96 * errors)
    low = 1 + np.searchsorted(highs, values - 1.96 * errors, "left")
    high = np.searchsorted(lows, values + 1.96 * errors, "right")
    return [RankInterval(int(a), int(b)) for a, b in zip(low, high, strict=True)]


def ours(values: Array, errors: Array) -> list[RankInterval]:
    return rank_intervals(values.tolist(), errors.tolist())


def outcome(rank: Rank, truth: Truth, num_rows: int, num_trials: int, shared: float = 0.0) -> Outcome:
    """`shared` is the share of every row's variance that is one error common to all, which can't change a rank."""
    rng = np.random.default_rng(num_rows)
    tables, rows, width = 0, 0.0, 0.0
    for _ in range(num_trials):
        means, errors = truth(rng, num_rows)
        own = math.sqrt(1 - shared) * rng.standard_normal(num_rows)
        values = means + errors * (own + math.sqrt(shared) * rng.standard_normal())
        found = rank(values, errors)
        holds = judged(found, means)
        tables += bool(holds.all())
        rows += float(holds.mean())
        width += float(np.mean([high - low for low, high in found]))
    return Outcome(tables / num_trials, rows / num_trials, width / num_trials)


def main(num_trials: int) -> None:
    cases: list[tuple[str, Truth, float]] = [
        ("all equal", equal, 0.0),
        ("equal, half of the variance shared", equal, 0.5),
        ("pairs, two errors apart", pairs, 0.0),
        ("spread", spread, 0.0),
        ("spread, a third exact", partly_exact, 0.0),
    ]
    for num_rows in (3, 8, 30, 100, MOST_PAIRED + 100):
        trials = max(400, num_trials * 8 // max(8, num_rows))
        for name, truth, shared in cases:
            for way in (ours, by_single_intervals):
                found = outcome(way, truth, num_rows, trials, shared)
                print(
                    f"{num_rows:4d} rows, {name}, {way.__name__}: tables {100 * found.tables:.1f} %, "
                    f"rows {100 * found.rows:.2f} %, width {found.width:.1f} ({trials} trials)",
                    flush=True,
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
