"""Numbers with the interval that their repetitions and their instrument give them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compressbench.core.protocols import Provenance
from compressbench.core.reading import Reading
from compressbench.core.statistics import Interval, mean_interval

_Z95 = 1.959963984540054


def of_rounds(amounts: Sequence[float], per: Sequence[float], rounds: Sequence[int]) -> Interval | float:
    """All amounts over all they are of, by block, with the half-width that the spread between rounds gives it; bare if
    there is one round only.

    The two blocks that an arm has in a round share the machine's mood, and would pass for twice as much evidence.
    """
    value = sum(amounts) / sum(per)
    sums: dict[int, tuple[float, float]] = {}
    for amount, of, number in zip(amounts, per, rounds, strict=True):
        before = sums.get(number, (0.0, 0.0))
        sums[number] = (before[0] + amount, before[1] + of)
    if len(sums) < 2:
        return value
    spread = mean_interval([amount / of for amount, of in sums.values()])
    half = (spread.high - spread.low) / 2
    return Interval(value, value - half, value + half)


def reading(name: str, found: Interval | float, how: Provenance, *, window_s: float | None = None) -> Reading:
    """A reading whose interval holds the spread of the rounds and what the instrument says of itself; never below 0."""
    value = found.value if isinstance(found, Interval) else found
    reason = _why_unbounded(found, how)
    low, high = (None, None) if reason or not isinstance(found, Interval) else _bounds(found, how)
    return Reading(
        name=name,
        value=value,
        kind=how.kind,
        source=how.source,
        boundary=how.boundary,
        low=low,
        high=high,
        uncertainty_reason=reason,
        window_s=window_s,
        tick_s=how.tick_s,
    )


def _why_unbounded(found: Interval | float, how: Provenance) -> str:
    """Why there is no interval; "" if there is one.

    The spread says how well a number repeats, not how far from the truth it is: where the instrument says nothing of
    that, and isn't the clock, there is none.
    """
    if how.relative_uncertainty is None and (how.kind != "measured" or how.uncertainty_reason):
        return how.uncertainty_reason or "not stated"
    return "" if isinstance(found, Interval) else "one round only"


def _bounds(found: Interval, how: Provenance) -> tuple[float, float]:
    own = _Z95 * (how.relative_uncertainty or 0.0) * found.value
    low = found.value - math.hypot(found.value - found.low, own)
    return max(0.0, low), found.value + math.hypot(found.high - found.value, own)
