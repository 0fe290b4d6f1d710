"""What making a candidate took, once: its own compressing and evaluating, and the search that found it.

A part without a number is never nothing: if it is the candidate's own there is no total, if it belongs to the search, or
was done elsewhere, the total is partial and names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from compressbench.core.statistics import Interval
from compressbench.lifecycle.savings import exact, scaled, total, weakest

Quantity = Literal["s", "J"]


class Figure(NamedTuple):
    """A number, or why there is none."""

    value: Interval | None
    kind: str = ""
    source: str = ""
    reason: str = ""


class Part(NamedTuple):
    """One piece of work. `is_search`: done to find the candidate, not to make it; a total needs all that are needed."""

    name: str
    seconds: Figure
    joules: Figure
    is_search: bool = False
    is_needed: bool = True

    def figure(self, quantity: Quantity) -> Figure:
        return self.seconds if quantity == "s" else self.joules


class OneOff(NamedTuple):
    """`missing` are the parts that the total lacks; a total that lacks a needed one is none, and `reason` says so."""

    value: Interval | None
    kind: str = ""
    missing: tuple[str, ...] = ()
    reason: str = ""


def joules_or_estimate(joules: Figure, seconds: Figure, watts: Figure) -> Figure:
    """What was read; else, `estimated`, the seconds at the mean power of the timed calls; else why there is none."""
    if joules.value is not None:
        return joules
    if seconds.value is None or watts.value is None:
        reason = joules.reason or "not recorded"
        lacks = seconds.reason or watts.reason if seconds.value is None else watts.reason
        return joules._replace(reason=f"{reason}, and nothing to estimate it from: {lacks}" if lacks else reason)
    found = scaled(watts.value, seconds.value.value)
    kind = weakest(["estimated", seconds.kind, watts.kind])
    return Figure(found, kind, f"its seconds x {watts.source}")


def one_off(parts: Sequence[Part], quantity: Quantity, *, with_search: bool) -> OneOff:
    """All parts, or those that made the candidate itself."""
    counted = [(part, part.figure(quantity)) for part in parts if with_search or not part.is_search]
    lacking = [(part, figure) for part, figure in counted if figure.value is None]
    missing = tuple(f"{part.name}: {figure.reason or 'not recorded'}" for part, figure in lacking)
    needed = [line for (part, _), line in zip(lacking, missing, strict=True) if part.is_needed]
    if needed:
        return OneOff(None, missing=missing, reason="; ".join(needed))
    values = [figure.value for _, figure in counted if figure.value is not None]
    kind = weakest(figure.kind for _, figure in counted if figure.value is not None)
    return OneOff(total(values) if values else exact(0.0), kind or "measured", missing)
