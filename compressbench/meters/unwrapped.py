"""A counter that wraps, made monotone, and what can be proved about its steps.

Between two readings at most `max_rate` times their distance can have been counted. A step that is larger is no count but a
reset. A smaller one is a count, unless the counter was reset to zero where that looks the same: at a wrap, or near zero.
By how much such a step would then be wrong is its `doubt`, in the counter's unit. It is small when the readings on both
sides of a wrap are close together (`next_poll_s`), and nothing when another counter that is reset together with this one
shows that there was no reset (`excludes_reset`). A reset to an arbitrary value is found unless it lands within what can
have been counted: of random landings a share of max_rate x (time between two readings) / range is missed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

POLLS_PER_WRAP = 4
# sleeping for more than half the time that the counter can need to its end would let it pass the end unseen
APPROACH = 0.5


class Point(NamedTuple):
    """The monotone counter at one reading: its total, and how many doubtful steps and breaks there were up to then."""

    total: int
    num_doubts: int
    num_breaks: int


class Span(NamedTuple):
    """What was counted between two points. With a `reason` it is unknown, and `counted` means nothing.

    `doubt` bounds the error if the counter was reset once in between without being noticed.
    """

    counted: int
    doubt: float
    reason: str


class Unwrapped:
    """Feed it with every reading in order; `between` tells what was counted between two of them.

    A reading has two times, taken before and after it: somewhere between them the counter had that value.
    `largest` is the value after which the counter goes on at 0, `max_rate` the most it can count per second, and
    `margin_s` by how much a value can be older than its reading (its tick). Over more than half the time of a wrap, or over
    `max_gap_s`, nothing is believed.
    """

    def __init__(self, largest: int, max_rate: float, margin_s: float = 0.0, max_gap_s: float = math.inf) -> None:
        self._largest, self._max_rate, self._margin_s = largest, max_rate, margin_s
        wrap_s = (largest + 1) / max_rate
        self.poll_s = wrap_s / POLLS_PER_WRAP
        self.max_gap_s = min(wrap_s / 2, max_gap_s)
        self._total = 0
        self._doubts: list[float] = []
        self._reasons: list[str] = []
        self._last: tuple[float, int] | None = None

    def add(self, before_s: float, after_s: float, raw: int, is_reset_excluded: bool = False) -> Point:
        """A reading that began at `before_s` and ended at `after_s`, later than all that were added before it."""
        if not 0 <= raw <= self._largest:
            return self.lose(f"counter out of range: {raw} is not within 0 and {self._largest}")
        if self._last is not None:
            self._step(after_s - self._last[0], self._last[1], raw, is_reset_excluded)
        self._last = (before_s, raw)
        return self._point()

    def lose(self, reason: str) -> Point:
        """What was counted since the last reading is unknown, and stays so until the next one."""
        self._reasons.append(reason)
        self._last = None
        return self._point()

    def excludes_reset(self, after_s: float, raw: int) -> bool:
        """Whether this next reading would prove that the counter was not set to zero since the last one.

        It has to have moved on: a counter that stands still on some number proves nothing.
        """
        if self._last is None:
            return False
        before_s, old = self._last
        return old < raw <= self._largest and raw > self._most(after_s - before_s)

    def next_poll_s(self, raw: int, longest_s: float, shortest_s: float) -> float:
        """How long to wait for the next reading: ever shorter towards the wrap, so that two close ones enclose it."""
        distance_s = min(raw, self._largest + 1 - raw) / self._max_rate
        return min(max(distance_s * APPROACH, shortest_s), longest_s, self.poll_s)

    def between(self, begin: Point, end: Point) -> Span:
        reasons = dict.fromkeys(self._reasons[begin.num_breaks : end.num_breaks])
        doubt = max(self._doubts[begin.num_doubts : end.num_doubts], default=0.0)
        return Span(end.total - begin.total, doubt, "; ".join(reasons))

    def _step(self, seconds: float, old: int, new: int, is_reset_excluded: bool) -> None:
        most = self._most(seconds)
        counted = (new - old) % (self._largest + 1)
        if seconds > self.max_gap_s:
            self._reasons.append(f"gap of {seconds:.3g} s between two readings: what happened in it is unknown")
        elif counted > most:
            self._reasons.append(
                f"counter_reset: {old} then {new} within {seconds:.3g} s, where at most {most:.0f} can be counted"
            )
        else:
            self._total += counted
            # after a reset to zero the counter can't have come further than `most`
            if not is_reset_excluded and new <= most:
                # the truth lies between `new`, all counted after the reset, and `most`
                self._doubts.append(max(abs(new - counted), most - counted))

    def _most(self, seconds: float) -> float:
        return self._max_rate * (seconds + self._margin_s)

    def _point(self) -> Point:
        return Point(self._total, len(self._doubts), len(self._reasons))
