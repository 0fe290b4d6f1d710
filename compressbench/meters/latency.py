"""`latency`: the time of one call, from handing over the inputs to having the result."""

from __future__ import annotations

import time
from typing import ClassVar

from compressbench.core.protocols import Clock, Provenance
from compressbench.core.spec import Spec


class Latency(Spec):
    """Wall time of every call on the monotonic clock; the loop synchronises the device before the clock is stopped."""

    scope: ClassVar[str] = "call"

    def open(self, device: str) -> Stopwatch:
        return Stopwatch()


class Stopwatch:
    """Never time.time: a clock that is set during a run gives wrong and even negative durations."""

    min_window_s = 0.0
    provenance = Provenance(kind="measured", source="monotonic clock (perf_counter_ns), device synchronised")

    def __init__(self, clock: Clock = time.perf_counter_ns) -> None:
        self.clock, self._started = clock, 0

    def start(self) -> None:
        self._started = self.clock()

    def stop(self) -> dict[str, float]:
        return {"latency_s": (self.clock() - self._started) / 1e9}

    def close(self) -> None:
        pass
