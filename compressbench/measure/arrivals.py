"""When queries arrive: a Poisson process, drawn once from a seed and stretched to any rate.

Every arm and every rate of a round gets the same pattern (common random numbers), so that two arms differ by what they do
and not by the luck of their arrivals.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

from compressbench.core.errors import InputError


def unit_arrivals(count: int, seed: int) -> list[float]:
    """`count` Poisson arrivals at a rate of exactly 1 per unit of time: the last of them is at `count`.

    The gaps are exponential, -ln(1 - U), from Python's Mersenne Twister, whose `random()` is the same in every version.
    They are scaled to a mean of exactly 1 so that the rate of a trial is the rate that was offered, as MLPerf LoadGen
    states a server's rate from the schedule as it was drawn and not from the one that was meant. What is left is a Poisson
    process given its number of arrivals. Raises InputError below one arrival.
    """
    if count < 1:
        raise InputError("a server needs at least one query", got=str(count))
    draw = random.Random(seed).random  # noqa: S311 -- a simulation, no secret
    gaps = [-math.log1p(-draw()) for _ in range(count)]
    stretch = count / math.fsum(gaps)
    times = [gap * stretch for gap in itertools.accumulate(gaps)]
    return [*times[:-1], float(count)]


def arrivals_ns(unit: Sequence[float], rate_per_s: float) -> list[int]:
    """The pattern at a rate, in whole nanoseconds from the beginning of a trial. Raises InputError for no rate at all."""
    if not (rate_per_s > 0 and math.isfinite(rate_per_s)):
        raise InputError("a rate of arrivals is a positive number per second", got=str(rate_per_s))
    gap_ns = 1e9 / rate_per_s
    return [round(time * gap_ns) for time in unit]
