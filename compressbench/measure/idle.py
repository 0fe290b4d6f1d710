"""What block meters read while nothing runs: before and after a comparison, with the models still in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal

from compressbench.core.protocols import Clock, Instrument
from compressbench.measure.instruments import forget_windows
from compressbench.measure.working import working
from compressbench.records.measurement import Idle


def read_idle(
    instruments: Mapping[str, Instrument],
    seconds: float,
    when: Literal["before", "after"],
    sleep: Callable[[float], None] = time.sleep,
    clock: Clock = time.perf_counter_ns,
) -> Idle:
    """One window of doing nothing, at least as long as the slowest instrument asks for. Synchronise the device before.

    An instrument that fails, or can't resolve so little, is void with its reason; it may work again afterwards.
    """
    forget_windows(instruments)
    work = working(instruments)
    work.start()
    begun_ns = clock()
    try:
        sleep(max(seconds, work.min_window_s))
    finally:
        ended_ns = clock()
        work.stop()
        [read] = work.collect()
    return Idle(
        when=when,
        seconds=(ended_ns - begun_ns) / 1e9,
        raw=read.raw,
        uncertainties=read.uncertainties,
        void={**read.void, **work.failed},
    )
