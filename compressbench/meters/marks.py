"""The windows that a run has marked and nobody has read yet: two readings of the clock each, nothing that takes time."""

from __future__ import annotations

from typing import NamedTuple

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Clock


class Mark(NamedTuple):
    begin_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.begin_ns) * 1e-9


class Marks:
    """`start` and `stop` of an instrument whose values are worked out later. Windows don't overlap."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begin_ns: int | None = None
        self._done: list[Mark] = []

    def start(self) -> None:
        """Raises MeterError if a window is open."""
        if self._begin_ns is not None:
            raise MeterError("this meter was started twice", do="Call stop() before the next start().")
        self._begin_ns = self._clock()

    def stop(self) -> None:
        """Raises MeterError if no window is open."""
        now_ns = self._clock()
        if self._begin_ns is None:
            raise MeterError("this meter was stopped before it was started", do="Call start() first.")
        self._done.append(Mark(self._begin_ns, now_ns))
        self._begin_ns = None

    @property
    def is_open(self) -> bool:
        return self._begin_ns is not None

    def take(self) -> list[Mark]:
        """The finished windows since the last call."""
        done, self._done = self._done, []
        return done

    def needed_since_ns(self) -> int:
        """What happened before this moment is of no use to a window that will be taken later."""
        return self._begin_ns if self._begin_ns is not None else self._clock()
