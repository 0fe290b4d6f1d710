"""Readings of the powercap counters, those of the polling thread and those of the marks, put in order and made monotone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from compressbench.meters.powercap import Domain, Reading
from compressbench.meters.unwrapped import Point, Span, Unwrapped

# more than any package draws: 500 W of thermal design power, doubled for short peaks
MAX_DOMAIN_W = 1000.0
J_PER_UJ = 1e-6
LONGEST_POLL_S, SHORTEST_POLL_S = 0.25, 0.005
MARGIN_TICKS = 2  # the tick jitters
MAX_GAP_S = 8 * LONGEST_POLL_S  # a thread on a crowded machine was late by 0.04 s at most
MAX_SUSPENDED_S = 0.5  # the two clocks behind it can be read a time slice apart


class Fed(NamedTuple):
    """A reading and where the monotone counters then stood."""

    reading: Reading
    points: tuple[Point, ...]


class PowercapLog:
    """Readings from the thread and from the marks, put in order and made monotone."""

    def __init__(self, ticks_s: Mapping[Domain, float]) -> None:
        """`ticks_s` are the domains, in the order of the readings, with their ticks."""
        max_rate = MAX_DOMAIN_W / J_PER_UJ
        self._counters = [
            Unwrapped(domain.largest_uj, max_rate, MARGIN_TICKS * tick_s, MAX_GAP_S)
            for domain, tick_s in ticks_s.items()
        ]
        self._polls: deque[Reading] = deque()
        self._last: Fed | None = None

    def add_poll(self, reading: Reading) -> float:
        """Called by the thread: no lock that a mark could have to wait for. Returns when the next one is due."""
        self._polls.append(reading)
        waits = [
            counter.next_poll_s(raw, LONGEST_POLL_S, SHORTEST_POLL_S)
            for counter, raw in zip(self._counters, reading.raws, strict=True)
            if isinstance(raw, int)
        ]
        return min(waits, default=LONGEST_POLL_S)

    def feed(self, marks: Sequence[Reading], until_s: float) -> tuple[list[Fed], list[int]]:
        """The readings since the last time, made monotone, after the last one of then, and which of them are the marks.

        Polls that ended after `until_s` are left for the next time.
        """
        polls = [self._polls.popleft() for _ in range(len(self._polls))]
        self._polls.extendleft(reversed([poll for poll in polls if poll.after_s > until_s]))
        fed = [] if self._last is None else [self._last]
        at: list[int] = []
        for reading, is_mark in _in_order(marks, [poll for poll in polls if poll.after_s <= until_s]):
            # two readings at once have no order, and a counter would seem to go back
            if is_mark or self._last is None or reading.before_s >= self._last.reading.after_s:
                if is_mark:
                    at.append(len(fed))
                self._last = Fed(reading, self._add(reading))
                fed.append(self._last)
        return fed, at

    def between(self, first: Fed, last: Fed) -> list[Span]:
        """Per domain what was counted."""
        counted = zip(self._counters, first.points, last.points, strict=True)
        return [counter.between(begin, end) for counter, begin, end in counted]

    def _add(self, reading: Reading) -> tuple[Point, ...]:
        slept_s = 0.0 if self._last is None else reading.suspended_s - self._last.reading.suspended_s
        if slept_s > MAX_SUSPENDED_S:
            for counter in self._counters:
                counter.lose(f"the machine was suspended for {slept_s:.3g} s")
        pairs = list(zip(self._counters, reading.raws, strict=True))
        # a reset sets all of them to zero
        is_excluded = any(
            isinstance(raw, int) and counter.excludes_reset(reading.after_s, raw) for counter, raw in pairs
        )
        return tuple(
            counter.add(reading.before_s, reading.after_s, raw, is_excluded)
            if isinstance(raw, int)
            else counter.lose(raw)
            for counter, raw in pairs
        )


def _in_order(marks: Sequence[Reading], polls: Iterable[Reading]) -> list[tuple[Reading, bool]]:
    """Readings with whether they are marks, by time, without polls that a mark overlaps."""
    ordered: list[tuple[Reading, bool]] = []
    both = [(mark, True) for mark in marks] + [(poll, False) for poll in polls]
    for reading, is_mark in sorted(both, key=lambda pair: pair[0].before_s):
        while is_mark and ordered and not ordered[-1][1] and ordered[-1][0].after_s > reading.before_s:
            ordered.pop()
        ordered.append((reading, is_mark))
    return ordered
