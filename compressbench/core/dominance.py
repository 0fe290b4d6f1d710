"""Who is better in everything: probabilities of dominance and of lying on the Pareto front, with uncertain numbers.

Points have a value and a standard error for each metric, the less the better. Values are taken as independent and normal,
between rows and between metrics; exact ones (error 0) are compared as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from compressbench.core.statistics import normal_upper_tail

if TYPE_CHECKING:
    import numpy as np

Point = Sequence[tuple[float, float]]
"""(value, standard error) for each metric."""
Membership = Literal["on the front", "possibly", "dominated"]

SURELY = 0.95
"""From this probability on a row is on the front, and below one minus it it isn't."""
_NEGLIGIBLE = 1e-4
_MOST_DRAWS, _FEWEST_DRAWS = 4000, 400
_MOST_NUMBERS = 2_000_000
# with three metrics or more: how many of a row's likeliest dominators are drawn
_MOST_RIVALS = 64
_MOST_SIEVES = 500
# among how many rows the likeliest dominator is looked for
_MOST_NAMED = 1000
_CHUNK = 256


class Dominator(NamedTuple):
    """Which row it is, by place, and how probable it is that it dominates."""

    at: int
    probability: float


def dominance_probability(ours: Point, theirs: Point) -> float:
    """P(ours <= theirs in all metrics, < in at least one), in closed form."""
    probability, is_strict = 1.0, False
    for (our_value, our_error), (their_value, their_error) in zip(ours, theirs, strict=True):
        spread = math.hypot(our_error, their_error)
        if spread > 0:
            probability *= normal_upper_tail((our_value - their_value) / spread)
        elif our_value > their_value:
            return 0.0
        is_strict = is_strict or spread > 0 or our_value < their_value
    return probability if is_strict else 0.0


def membership(probability: float) -> Membership:
    """What is said of a row with this probability on the front."""
    if probability >= SURELY:
        return "on the front"
    # not 1 - SURELY, which is a little above 0.05
    return "possibly" if probability >= 0.05 else "dominated"


def num_draws_for(num_rows: int, num_metrics: int) -> int:
    """4,000 draws of few rows, at least 400 of many; a probability's standard error is at most half over its root."""
    numbers = _MOST_NUMBERS if num_metrics == 2 else _MOST_NUMBERS // 4
    return max(_FEWEST_DRAWS, min(_MOST_DRAWS, numbers // max(1, num_rows)))


def front_probabilities(points: Sequence[Point], seed: int = 0, num_draws: int | None = None) -> list[float]:
    """By row, how probable it is that no other row dominates it; the same for the same points and seed.

    By simulation of the whole set (`num_draws_for` says how often), because a row's rivals aren't independent. A row that a
    single other one dominates with 0.9999 or more isn't drawn: it gets what that leaves, an upper bound. With other than
    two metrics only the 64 likeliest dominators of a row are drawn, so that in larger sets a probability can be too high.
    Raises ValueError for numbers that aren't finite or points of unequal length.
    """
    if not points:
        return []
    import numpy as np

    array = _checked(points)
    unique, back = _without_exact_twins(array)
    found = np.zeros(len(unique))
    left = _sieve(unique, found)
    drawn = unique[left]
    count = num_draws or num_draws_for(*drawn.shape[:2])
    count = count if drawn[:, :, 1].any() else 1
    found[left] = _simulated(drawn, np.random.default_rng(seed), count)
    return [float(each) for each in found[back]]


def likeliest_dominators(points: Sequence[Point], front: Sequence[float]) -> list[Dominator | None]:
    """By row the row that dominates it most probably, None where none does with 0.0001 or more.

    `front` are the rows' probabilities of being on the front: among dominators that are within a hundredth of the most
    probable the one that is most probably on it is named, then the first. Of more than 1,000 rows only those that are
    most probably on the front are looked at.
    """
    if not points:
        return []
    import numpy as np

    array = _checked(points)
    asked = np.sort(np.argsort(-np.asarray(front), kind="stable")[:_MOST_NAMED])
    asked_front = np.asarray(front)[asked]
    found: list[Dominator | None] = []
    for start in range(0, len(array), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(array)))
        chances = _dominance(array[asked], array[rows])
        chances[asked[:, None] == rows] = 0
        is_near = (chances >= chances.max(axis=0) - 0.01) & (chances > 0)
        chosen = asked[np.where(is_near, asked_front[:, None], -1.0).argmax(axis=0)]
        found += (_dominator(points, int(by), int(at)) for by, at in zip(chosen, rows, strict=True))
    return found


def _dominator(points: Sequence[Point], by: int, at: int) -> Dominator | None:
    probability = 0.0 if by == at else dominance_probability(points[by], points[at])
    return Dominator(by, probability) if probability >= _NEGLIGIBLE else None


def _checked(points: Sequence[Point]) -> Any:
    """As an array (rows, metrics, 2)."""
    import numpy as np

    if len({len(point) for point in points}) != 1 or not points[0]:
        raise ValueError("points need the same metrics, at least one")
    array = np.array(points, dtype=np.float64) + 0.0  # so that -0.0 is 0.0
    if not np.isfinite(array).all() or (array[:, :, 1] < 0).any():
        raise ValueError("points need finite values, and errors of at least 0")
    return array


def _without_exact_twins(array: Any) -> tuple[Any, Any]:
    """Exact rows that are equal in everything don't dominate each other: one stands for all. Also who stands for whom."""
    firsts: dict[object, int] = {}
    kept: list[int] = []
    back: list[int] = []
    for at, point in enumerate(array):
        name = at if point[:, 1].any() else point.tobytes()
        if name not in firsts:
            firsts[name] = len(kept)
            kept.append(at)
        back.append(firsts[name])
    return array[kept], back


def _dominance(ours: Any, theirs: Any) -> Any:
    """P(row i of ours dominates row j of theirs) as an array (i, j), to six digits."""
    import numpy as np

    probability = np.ones((len(ours), len(theirs)))
    is_strict = np.zeros(probability.shape, dtype=bool)
    for metric in range(ours.shape[1]):
        (our_value, our_error), (their_value, their_error) = ours[:, metric].T, theirs[:, metric].T
        gap = their_value - our_value[:, None]
        spread = np.hypot(their_error, our_error[:, None])
        is_strict |= (spread > 0) | (gap > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            probability *= np.where(spread > 0, _normal_cdf(gap / spread), gap >= 0)
    return probability * is_strict


def _normal_cdf(z: Any) -> Any:
    """To 1e-7 (Abramowitz & Stegun 26.2.17); numpy has no error function."""
    import numpy as np

    t = 1 / (1 + 0.2316419 * np.abs(z))
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    tail = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * series
    return np.where(z > 0, 1 - tail, tail)


def _sieve(array: Any, found: Any) -> Any:
    """The places of rows that no single row dominates almost surely; of the others `found` gets the upper bound.

    Whoever such a row dominates, its dominator dominates too, so that its absence changes next to nothing for the others.
    """
    import numpy as np

    sieves, kept = _best_rows(array), []
    for start in range(0, len(array), _CHUNK):
        chances = _dominance(array[sieves], array[start : start + _CHUNK])
        best = chances.argmax(axis=0)
        for offset, by in enumerate(best):
            if chances[by, offset] < 1 - _NEGLIGIBLE:
                kept.append(start + offset)
            else:
                row = array[start + offset].tolist()
                found[start + offset] = 1 - dominance_probability(array[sieves[by]].tolist(), row)
    return np.array(kept, dtype=np.int64)


def _best_rows(array: Any) -> Any:
    """Rows that are likely to dominate many: those on the front of the bare values, at most 500 of them."""
    import numpy as np

    values = array[:, :, 0]
    front: list[int] = []
    for at in np.lexsort(values.T[::-1]):
        if not front or not (values[front] <= values[at]).all(axis=1).any():
            front.append(int(at))
    return np.array(front[:: -(-len(front) // _MOST_SIEVES)], dtype=np.int64)


def _simulated(points: Any, rng: np.random.Generator, num_draws: int) -> Any:
    """By row the share of draws in which it is on the front."""
    import numpy as np

    num_rows, num_metrics = points.shape[:2]
    rivals = None if num_metrics == 2 else _rivals(points)
    times, step = np.zeros(num_rows), max(1, _MOST_NUMBERS // num_rows)
    for start in range(0, num_draws, step):
        shape = (min(step, num_draws - start), num_rows)
        drawn = [value + error * rng.standard_normal(shape) for value, error in points.transpose(1, 2, 0)]
        times += _by_sorting(*drawn) if rivals is None else _by_comparing(drawn, rivals)
    return times / num_draws


def _by_sorting(first: Any, second: Any) -> Any:
    """How often each row is on the front of two metrics, arrays (draws, rows)."""
    import numpy as np

    order = np.lexsort((second, first), axis=-1)
    ordered = np.take_along_axis(second, order, axis=-1)
    is_on_front = np.ones(order.shape, dtype=bool)
    is_on_front[:, 1:] = ordered[:, 1:] < np.minimum.accumulate(ordered, axis=-1)[:, :-1]
    return np.bincount(order[is_on_front], minlength=order.shape[1])


def _rivals(points: Any) -> list[Any]:
    """By row the places of its likeliest dominators."""
    import numpy as np

    found: list[Any] = []
    for start in range(0, len(points), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(points)))
        chances = _dominance(points, points[rows])
        chances[rows, rows - start] = 0
        if len(points) > _MOST_RIVALS:
            likeliest = np.argpartition(-chances, _MOST_RIVALS, axis=0)[:_MOST_RIVALS]
        else:
            likeliest = np.broadcast_to(np.arange(len(points))[:, None], chances.shape)
        is_possible = np.take_along_axis(chances, likeliest, axis=0) > 1e-6
        found += (likeliest[is_possible[:, at], at] for at in range(len(rows)))
    return found


def _by_comparing(drawn: Sequence[Any], rivals: Sequence[Any]) -> Any:
    """The same of any number of metrics; there are no twins, so that nowhere worse is somewhere better."""
    import numpy as np

    by_row = [np.ascontiguousarray(metric.T) for metric in drawn]
    times = []
    for at, others in enumerate(rivals):
        is_nowhere_worse = np.ones((len(others), by_row[0].shape[1]), dtype=bool)
        for metric in by_row:
            is_nowhere_worse &= metric[others] <= metric[at]
        times.append((~is_nowhere_worse.any(axis=0)).sum())
    return np.array(times)
