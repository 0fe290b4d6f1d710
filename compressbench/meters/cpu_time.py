"""How much CPU time this process has used, read in about 2 µs, and what its children used, which takes a thousand."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

TICK_S = 0.01
"""The kernel charges a thread that runs on when it is descheduled and at scheduler ticks, so that the time of threads
other than the one that asks is up to a tick behind: 1 to 10 ms (1 / CONFIG_HZ; 4 ms were found at 250 Hz). The time of
children, and psutil's of any process, comes in ticks of 10 ms."""


class Moment(NamedTuple):
    """Seconds of: a monotonic clock, this process's CPU, the CPU of its children that have ended."""

    monotonic_s: float
    own_cpu_s: float
    ended_children_cpu_s: float


def read_moment() -> Moment:
    times = os.times()
    return Moment(time.perf_counter(), time.process_time(), times.children_user + times.children_system)


Child = tuple[int, float]
"""Process number and when it was created: numbers are used again."""


def read_children() -> dict[Child, float]:
    """CPU seconds of all living descendants. Takes a millisecond or more: all processes are looked at."""
    import psutil

    found: dict[Child, float] = {}
    try:
        children = psutil.Process().children(recursive=True)
    except psutil.Error:
        return found
    for child in children:
        try:
            times = child.cpu_times()
            found[(child.pid, child.create_time())] = times.user + times.system
        except psutil.Error:  # it ended between the two questions, and then it is among the ended ones
            continue
    return found


class Children:
    """What living children have used since the last look."""

    def __init__(self, read: Callable[[], Mapping[Child, float]] = read_children) -> None:
        self._read, self._seen = read, read()

    def used_s(self) -> float:
        now, before = self._read(), self._seen
        self._seen = now
        return sum(max(0.0, seconds - before.get(child, 0.0)) for child, seconds in now.items())
