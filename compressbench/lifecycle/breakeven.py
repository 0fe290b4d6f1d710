"""After how many requests compressing has paid for itself, and how much is saved by then and later.

N* = C / s, one-off cost over saving per inference. Its interval is that of a ratio of two independent estimates from their
own intervals (MOVER-R; Donner & Zou 2012, doi:10.1177/0962280210383082): Fieller's where both are normal, and the exact
image of the saving's interval where the cost is exact. Where the saving's interval reaches zero there is no upper end:
then the lower end is said (`at_least`), and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from compressbench.core.statistics import Interval

Outcome = Literal["reached", "never", "undetermined"]
DAYS_PER_YEAR = 365.25
COUNTS = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)


class BreakEven(NamedTuple):
    """`requests` is there only if the outcome is `reached`. `at_least` is a bound that holds with 97.5 % confidence, of an
    undetermined one; None if not even that can be said.
    """

    outcome: Outcome
    requests: Interval | None = None
    at_least: float | None = None
    reason: str = ""


class Point(NamedTuple):
    """The net saving after so many requests: below zero as long as compressing hasn't paid for itself."""

    requests: float
    net: Interval


def break_even(cost: Interval, saving: Interval) -> BreakEven:
    """`reached` if the whole interval of the saving is above zero, `never` if none of it is, else `undetermined`.

    Raises ValueError for a cost below zero or bounds that are no numbers.
    """
    if not all(map(math.isfinite, (*cost, *saving))) or not 0 <= cost.low <= cost.value <= cost.high:
        raise ValueError(f"a cost and a saving are finite, and a cost is at least zero (got {cost}, {saving})")
    if not saving.low <= saving.value <= saving.high:
        raise ValueError(f"a saving lies in its interval (got {saving})")
    if saving.high <= 0:
        return BreakEven("never", reason="it saves nothing")
    if saving.low <= 0:
        return BreakEven("undetermined", at_least=cost.low / saving.high, reason="the saving's interval holds zero")
    return BreakEven("reached", ratio_of(cost, saving))


def ratio_of(over: Interval, under: Interval) -> Interval:
    """MOVER-R. `under` is above zero with its whole interval, `over` at least zero."""
    both = over.value * under.value
    low = over.low * (2 * over.value - over.low)
    high = over.high * (2 * over.value - over.high)
    of_low, of_high = under.low * (2 * under.value - under.low), under.high * (2 * under.value - under.high)
    bottom = both + math.sqrt(max(0.0, both * both - low * of_high))
    value = over.value / under.value
    top = (both + math.sqrt(max(0.0, both * both - high * of_low))) / of_low
    # rounding may carry an exact bound past the value
    return Interval(value, min(value, low / bottom if bottom else 0.0), max(value, top))


def net_saving(requests: float, cost: Interval, saving: Interval) -> Interval:
    """N s - C, square-and-add of both intervals."""
    value = requests * saving.value - cost.value
    down = math.hypot(requests * (saving.value - saving.low), cost.high - cost.value)
    up = math.hypot(requests * (saving.high - saving.value), cost.value - cost.low)
    return Interval(value, value - down, value + up)


def curve(cost: Interval, saving: Interval, counts: Sequence[float] = COUNTS) -> tuple[Point, ...]:
    return tuple(Point(count, net_saving(count, cost, saving)) for count in counts)


def payback_days(found: BreakEven, requests_per_day: float) -> Interval | None:
    """None where the break-even isn't reached. Raises ValueError unless the rate is above zero."""
    if not (requests_per_day > 0 and math.isfinite(requests_per_day)):
        raise ValueError(f"requests per day are above zero (got {requests_per_day})")
    return None if found.requests is None else Interval(*(each / requests_per_day for each in found.requests))
