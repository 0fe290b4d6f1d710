"""Readings of the powercap counters, those of the polling thread and those of the marks, put in order and made monotone.

A counter that stands still for a while, or whose tick has become slower, shows it only where two readings are a few ticks
apart and saw the same. So the polls come in pairs that are, four pairs in the shortest window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from compressbench.meters.powercap import Domain, Reading
from compressbench.meters.unwrapped import Point, Span, Unwrapped

# more than any package draws: 500 W of thermal design power, doubled for short peaks
MAX_DOMAIN_W = 1000.0
J_PER_UJ = 1e-6
LONGEST_POLL_S, SHORTEST_POLL_S = 0.25, 0.005
MARGIN_TICKS = 2  # the tick jitters
MAX_GAP_S = 8 * LONGEST_POLL_S  # a thread on a crowded machine was late by 0.04 s at most
PAIR_TICKS, TICKS_PER_PAIR = 5, 25
MAX_POLLS = 1 << 15  # not read yet; from then on polls are as rare as wraps allow
STILL_TICKS, STILL_TICKS_AT_A_MARK = 10, 5
NUM_SPANS, SPAN_TICKS, MAX_RECENT = 20, 4, 80
MAX_SHARE_STILL = 0.1  # a counter that is late now and then doesn't have another tick
MAX_SUSPENDED_S = 0.5  # the two clocks behind it can be read a time slice apart


class Fed(NamedTuple):
    """A reading and where the monotone counters then stood."""

    reading: Reading
    points: tuple[Point, ...]


class PowercapLog:
    """Readings from the thread and from the marks, put in order and made monotone."""

    def __init__(self, ticks_s: Mapping[Domain, float]) -> None:
        """`ticks_s` are the domains, in the order of the readings, with their ticks."""
        self._tick_s = max(tick_s for domain, tick_s in ticks_s.items() if domain.role == "package")
        max_rate = MAX_DOMAIN_W / J_PER_UJ
        self._counters = [
            Unwrapped(domain.largest_uj, max_rate, MARGIN_TICKS * tick_s, MAX_GAP_S)
            for domain, tick_s in ticks_s.items()
        ]
        self._polls: deque[Reading] = deque()
        self._num_polls = count()
        self._recent: deque[Fed] = deque(maxlen=MAX_RECENT)

    def add_poll(self, reading: Reading) -> float:
        """Called by the thread: no lock that a mark could have to wait for. Returns when the next one is due."""
        self._polls.append(reading)
        num_ticks = PAIR_TICKS if next(self._num_polls) % 2 == 0 else TICKS_PER_PAIR - PAIR_TICKS
        longest_s = LONGEST_POLL_S if len(self._polls) > MAX_POLLS else min(LONGEST_POLL_S, num_ticks * self._tick_s)
        waits = [
            counter.next_poll_s(raw, longest_s, SHORTEST_POLL_S)
            for counter, raw in zip(self._counters, reading.raws, strict=True)
            if isinstance(raw, int)
        ]
        return min(waits, default=longest_s)

    def feed(self, marks: Sequence[Reading], until_s: float) -> tuple[list[Fed], list[int]]:
        """The readings since the last time, made monotone, after the last few of then, and which of them are the marks.

        Polls that ended after `until_s` are left for the next time.
        """
        polls = [self._polls.popleft() for _ in range(len(self._polls))]
        self._polls.extendleft(reversed([poll for poll in polls if poll.after_s > until_s]))
        fed = list(self._recent)
        at: list[int] = []
        for reading, is_mark in _in_order(marks, [poll for poll in polls if poll.after_s <= until_s]):
            # two readings at once have no order, and a counter would seem to go back
            if is_mark or not self._recent or reading.before_s >= self._recent[-1].reading.after_s:
                if is_mark:
                    at.append(len(fed))
                self._recent.append(Fed(reading, self._add(reading)))
                fed.append(self._recent[-1])
        return fed, at

    def between(self, first: Fed, last: Fed) -> list[Span]:
        """Per domain what was counted."""
        counted = zip(self._counters, first.points, last.points, strict=True)
        return [counter.between(begin, end) for counter, begin, end in counted]

    def _add(self, reading: Reading) -> tuple[Point, ...]:
        slept_s = reading.suspended_s - self._recent[-1].reading.suspended_s if self._recent else 0.0
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


def stillness(fed: Sequence[Fed], begin: int, end: int, index: int, tick_s: float) -> str:
    """Why the counter number `index` doesn't tell the energy between two of the readings, though it moved; "" if it does.

    It stood still for a part of that time, and may have lost what was used meanwhile; or its tick isn't `tick_s` any more.
    """
    around = fed[max(0, begin - MAX_RECENT) : end + MAX_RECENT]
    begin, end = begin - max(0, begin - MAX_RECENT), end - max(0, begin - MAX_RECENT)
    stretches = list(_stretches(around, index))
    for since, until in stretches:
        is_at_a_mark = since <= begin < until or since < end <= until
        limit = STILL_TICKS_AT_A_MARK if is_at_a_mark else STILL_TICKS
        still_s = _seconds(around, max(since, begin), min(until, end))
        if _seconds(around, since, until) >= limit * tick_s and still_s > MARGIN_TICKS * tick_s:
            return f"stood still for {still_s:.3g} s of the window, with a tick of {tick_s * 1e3:.3g} ms"
    # one that stood still outside of this time and came back is not slow
    still = [pair for pair in stretches if _seconds(around, *pair) >= STILL_TICKS * tick_s]
    spans = [
        (last, is_still) for first, last, is_still in _spans(around, index, tick_s) if not _is_in(still, first, last)
    ]
    num_inside = sum(begin < at <= end for at, _ in spans)
    found = [is_still for at, is_still in spans if at <= end][-max(NUM_SPANS, num_inside) :]
    if sum(found) > MAX_SHARE_STILL * max(len(found), NUM_SPANS):
        return f"is slower than its tick of {tick_s * 1e3:.3g} ms: it stood still in {sum(found)} of {len(found)} spans"
    return ""


def _stretches(fed: Sequence[Fed], index: int) -> Iterator[tuple[int, int]]:
    """The first and the last of every row of readings that saw the same."""
    since = 0
    for at in range(1, len(fed) + 1):
        if at == len(fed) or not _is_still(fed[since], fed[at], index):
            if at - 1 > since:
                yield since, at - 1
            since = at


def _spans(fed: Sequence[Fed], index: int, tick_s: float) -> Iterator[tuple[int, int, bool]]:
    """Two readings between which a few ticks, and not many, lie, and whether both saw the same."""
    for one in range(len(fed)):
        later = (other for other in range(one + 1, len(fed)) if _seconds(fed, one, other) >= SPAN_TICKS * tick_s)
        other = next(later, None)
        if other is not None and _seconds(fed, one, other) < 2 * PAIR_TICKS * tick_s:
            yield one, other, _is_still(fed[one], fed[other], index)


def _is_in(stretches: Sequence[tuple[int, int]], first: int, last: int) -> bool:
    return any(since <= first and last <= until for since, until in stretches)


def _is_still(first: Fed, last: Fed, index: int) -> bool:
    before, after = first.points[index], last.points[index]
    return before.total == after.total and before.num_breaks == after.num_breaks


def _seconds(fed: Sequence[Fed], first: int, last: int) -> float:
    """At least so much time lies between two readings."""
    return fed[last].reading.before_s - fed[first].reading.after_s
