"""Diminishing returns along rows of growing cost: what each step gains, with intervals, and where no more gain is shown.

Errors are standard errors of independent normal values; 0 is exact. A ratio's interval is Fieller's (1954), which has the
coverage that it says even where the divisor is uncertain, and is unbounded where the divisor may be zero. Pure Python.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from compressbench.core.ranking import joint_z
from compressbench.core.statistics import Interval

_Z95 = 1.959963984540054


class Point(NamedTuple):
    """A row: what it costs (the less the better) and how good it is (the more the better).

    Errors are of the comparison with what its group was paired with; between groups those of its own values count.
    """

    cost: float
    quality: float
    cost_error: float = 0.0
    quality_error: float = 0.0
    group: str = ""
    own_cost_error: float = 0.0
    own_quality_error: float = 0.0


class Ratio(NamedTuple):
    """`low` and `high` are None where the interval is unbounded."""

    value: float
    low: float | None
    high: float | None


class Step(NamedTuple):
    """From a row of the front to the next dearer one, both as places among the points. `is_shown`: the interval of the gain
    lies above 0, and the gain is not below the smallest one of interest.
    """

    start: int
    end: int
    extra_cost: Interval
    gain: Interval
    per_cost: Ratio
    is_shown: bool


class Returns(NamedTuple):
    """`front` are places among the points, the cheapest first; `steps` are between its neighbours.

    `first_unshown` is the place of the first step that shows no gain, None if each does. `jumps` are gains over several
    rows that are shown though no step below them is (simultaneous intervals). `stop` is the point after which nothing more
    is shown, the last of the front if it never ends; `beyond` are the gains of all later rows over it, simultaneous.
    """

    front: tuple[int, ...]
    steps: tuple[Step, ...]
    first_unshown: int | None
    jumps: tuple[Step, ...]
    stop: int
    beyond: tuple[Step, ...]


def ratio_interval(value: float, error: float, by: float, by_error: float, z: float = _Z95) -> Ratio:
    """Fieller's interval of value / by, both uncertain and independent. Raises ZeroDivisionError if `by` is 0."""
    ratio = value / by
    certain = by * by - z * z * by_error * by_error
    if certain <= 0:
        return Ratio(ratio, None, None)
    # so written there is nothing to cancel below the root
    half = z * math.sqrt(error * error * certain + value * value * by_error * by_error)
    return Ratio(ratio, (value * by - half) / certain, (value * by + half) / certain)


def front_of_points(points: Sequence[Point]) -> list[int]:
    """Those that no other point is at least as good as in both and better in one, by their values; cheapest first.

    Of points that are equal in both the first one is kept.
    """
    order = sorted(range(len(points)), key=lambda at: (points[at].cost, -points[at].quality, at))
    found: list[int] = []
    for at in order:
        if not found or points[at].quality > points[found[-1]].quality:
            found.append(at)
    return found


def returns_of(points: Sequence[Point], smallest_gain: float = 0.0) -> Returns:
    """Walk along the front until a step's interval holds 0 or its gain is below the smallest one of interest.

    Where a step shows nothing, later rows are still compared with its start, all of them together at 95 % (Sidak), so that
    many small steps can't hide a large gain. Raises ValueError for no points or numbers that aren't finite.
    """
    if not points or not all(math.isfinite(number) for point in points for number in _numbers(point)):
        raise ValueError("returns need at least one point, and finite numbers")
    front = front_of_points(points)
    steps = [step_between(points, start, end, smallest_gain) for start, end in itertools.pairwise(front)]
    first = next((place for place, step in enumerate(steps) if not step.is_shown), None)
    jumps: list[Step] = []
    at, beyond = 0, []
    while at < len(steps):
        if steps[at].is_shown:
            at += 1
            continue
        beyond = _beyond(points, front, at, smallest_gain)
        jump = next((step for step in beyond if step.is_shown), None)
        if jump is None:
            break
        jumps.append(jump)
        at, beyond = front.index(jump.end), []
    return Returns(tuple(front), tuple(steps), first, tuple(jumps), front[at], tuple(beyond))


def _beyond(points: Sequence[Point], front: Sequence[int], at: int, smallest_gain: float) -> list[Step]:
    z = joint_z(len(front) - at - 1)
    return [step_between(points, front[at], end, smallest_gain, z) for end in front[at + 1 :]]


def step_between(
    points: Sequence[Point], start: int, end: int, smallest_gain: float = 0.0, z: float = _Z95
) -> Step:  # fmt: skip
    """What `end` gains over `start`, which costs less."""
    cheap, dear = points[start], points[end]
    gain, extra = dear.quality - cheap.quality, dear.cost - cheap.cost
    extra_error, gain_error = _errors(cheap, dear)
    low = gain - z * gain_error
    return Step(
        start=start,
        end=end,
        extra_cost=Interval(extra, extra - z * extra_error, extra + z * extra_error),
        gain=Interval(gain, low, gain + z * gain_error),
        per_cost=ratio_interval(gain, gain_error, extra, extra_error, z),
        is_shown=low > 0 and gain >= smallest_gain,
    )


def gain_between(points: Sequence[Point], start: int, end: int, z: float = _Z95) -> Interval:
    """What `end` has over `start` in quality, whatever they cost."""
    _, error = _errors(points[start], points[end])
    gain = points[end].quality - points[start].quality
    return Interval(gain, gain - z * error, gain + z * error)


def _numbers(point: Point) -> tuple[float, ...]:
    return (*point[:4], point.own_cost_error, point.own_quality_error)


def _errors(cheap: Point, dear: Point) -> tuple[float, float]:
    """Of the differences in cost and in quality."""
    if cheap.group == dear.group:
        return math.hypot(dear.cost_error, cheap.cost_error), math.hypot(dear.quality_error, cheap.quality_error)
    return (
        math.hypot(dear.own_cost_error, cheap.own_cost_error),
        math.hypot(dear.own_quality_error, cheap.own_quality_error),
    )


def elasticity(points: Sequence[Point], step: Step, *, is_log: bool = False) -> Ratio | None:
    """Relative gain for each relative increase of cost, ln(q2 / q1) / ln(E2 / E1), errors carried to first order.

    `is_log`: qualities are logarithms already. None where a quality or a cost is not above zero.
    """
    cheap, dear = points[step.start], points[step.end]
    low, high = (1.0, 1.0) if is_log else (cheap.quality, dear.quality)
    if min(low, high, cheap.cost) <= 0 or dear.cost <= cheap.cost:
        return None
    by = [
        each._replace(
            cost_error=each.cost_error / each.cost,
            own_cost_error=each.own_cost_error / each.cost,
            quality_error=each.quality_error / level,
            own_quality_error=each.own_quality_error / level,
        )
        for each, level in ((cheap, low), (dear, high))
    ]
    extra_error, gain_error = _errors(*by)
    gain = step.gain.value if is_log else math.log(high / low)
    return ratio_interval(gain, gain_error, math.log(dear.cost / cheap.cost), extra_error)


def knee(points: Sequence[Point], front: Sequence[int]) -> int | None:
    """The point of the front that lies farthest above the chord of its ends, both axes scaled to 1; None if none does.

    It depends on the ends and says nothing of what is worth its cost: for display only.
    """
    if len(front) < 3:
        return None
    first, last = points[front[0]], points[front[-1]]

    def above(at: int) -> float:
        share_of_cost = (points[at].cost - first.cost) / (last.cost - first.cost)
        return (points[at].quality - first.quality) / (last.quality - first.quality) - share_of_cost

    farthest = max(front[1:-1], key=above)
    return farthest if above(farthest) > 0 else None
