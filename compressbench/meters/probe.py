"""What a counter is like, found by watching it before it is used: its tick, and what one reading costs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

MIN_SPACING_S = 0.05  # of a faster counter not every edge is worth waking up for: it costs what is being timed
_SHARP = 0.5
_READS_PER_EDGE, _MAX_SHARE_READING = 2, 0.01
_NS = 1e-9


class Edge(NamedTuple):
    """The counter rose to `joules` after `earliest_ns` and before `latest_ns`."""

    earliest_ns: int
    latest_ns: int
    joules: float

    @property
    def at_ns(self) -> float:
        return (self.earliest_ns + self.latest_ns) / 2

    @property
    def width_ns(self) -> int:
        return self.latest_ns - self.earliest_ns

    def is_sharp(self, tick_s: float) -> bool:
        """Whether it is known when within the tick it rose: the sampler was awake."""
        return self.width_ns * _NS <= _SHARP * tick_s


class Probe(NamedTuple):
    """The counter's tick (median gap between increments), the spread of the gaps (standard deviation), the median time
    that one reading takes, and the smallest increment."""

    tick_s: float
    jitter_s: float
    read_s: float
    smallest_j: float
    num_edges: int


def is_slow_to_read(probe: Probe) -> bool:
    """Whether reading around every increment that is waited for would take a noticeable part of the time."""
    return _READS_PER_EDGE * probe.read_s > _MAX_SHARE_READING * max(MIN_SPACING_S, probe.tick_s)


def slow_reading(probe: Probe) -> tuple[str, ...]:
    """A sentence for the provenance of a counter that is slow to read; or none."""
    if not is_slow_to_read(probe):
        return ()
    return (f"reading the counter takes {probe.read_s * 1e3:.2g} ms: it is not read while calls are timed",)


def summary(edges: Sequence[Edge], costs_ns: Sequence[int]) -> Probe:
    gaps_s = [(later.at_ns - earlier.at_ns) * _NS for earlier, later in pairwise(edges)]
    return Probe(
        tick_s=statistics.median(gaps_s),
        jitter_s=statistics.stdev(gaps_s),
        read_s=statistics.median(costs_ns) * _NS,
        smallest_j=min(later.joules - earlier.joules for earlier, later in pairwise(edges)),
        num_edges=len(edges),
    )
