"""What some instruments can do or need besides what `core.protocols.Instrument` asks of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeGuard, runtime_checkable

SPREAD_OF_A_TICK = 0.05
"""How far power wanders over one tick of a meter around its mean, relative (k = 1): an H200's at steady work."""


@runtime_checkable
class HasSeries(Protocol):
    """An instrument that keeps when its counter moved, so that phases within a window can be told apart."""

    def series(self, begin_ns: int, end_ns: int) -> list[tuple[int, float]] | None:
        """Its increments in that time: nanoseconds of `time.perf_counter_ns`, and joules so far; None: not kept."""
        ...


@runtime_checkable
class WantsLead(Protocol):
    """An instrument whose counter must not be read while calls are timed, because reading it delays them.

    Where it `wants_lead`, work of the same kind goes on untimed before a window, until an increment has been seen, and
    after the window until the next one. In a window that follows a lead the counter isn't read.
    """

    @property
    def wants_lead(self) -> bool: ...

    def lead(self, *, before: bool) -> Callable[[], bool]:
        """Begin to look for an increment, `before` the window that is started next, or after one that has been stopped.

        What it returns says whether one has been seen since. Raises MeterError.
        """
        ...


def wants_lead(instrument: object) -> TypeGuard[WantsLead]:
    """Whether it can have work go on beside its windows, and wants that."""
    return isinstance(instrument, WantsLead) and instrument.wants_lead
