"""When to look at a slow counter again: asleep for most of a tick, awake around the moment it is due to move.

The tick is learned from the last few increments, and how early to wake up from how far these were off. A tick that
changes, a counter that stands still, and one that comes back are met with readings a hundredth of the time apart that
has passed since the last increment: often enough to know the next one within 1 %, and never many.
"""

from __future__ import annotations

import math
import statistics
from collections import deque

_FINENESS, _MAX_READS_EARLY = 100, 12
_MIN_POLL_S, _MAX_POLL_S = 1e-4, 0.1
_MIN_SLEEP_S = 3e-4
_TRUST = 1.0
_RECENT_GAPS, _RECENT_ERRORS, _RESYNC_RISES = 7, 16, 3
_MAX_STRIDES = 100  # ticks after which it isn't known any more when the next one is due
_NS = 1e-9


class Rhythm:
    """Tell it every increment of the counter, and it says how long to pause before the next reading.

    It stays awake all the time until it `may_sleep`. Of a counter that is faster than `spacing_s` it then waits for one
    increment in so many seconds. A reading takes `reading_s`, and has to be over before the counter moves.
    """

    def __init__(self, now_ns: int, spacing_s: float = 0.0) -> None:
        self.may_sleep, self.reading_s, self._spacing_s = False, 0.0, spacing_s
        # seconds per tick, and over how many ticks they were timed: the more, the better
        self._gaps: deque[tuple[float, int]] = deque(maxlen=_RECENT_GAPS)
        self._tick_s: float | None = None
        self._errors: deque[float] = deque(maxlen=_RECENT_ERRORS)
        self.restart(now_ns)

    @property
    def tick_s(self) -> float | None:
        """The median of the last few ticks that were timed; None before there were any."""
        return self._tick_s

    def restart(self, now_ns: int) -> None:
        """Nothing is known of the last increment any more. The tick is kept until another one is found."""
        self._rise_ns: float | None = None
        self._is_vague, self._is_ready, self._waiting_since_ns = False, False, now_ns
        self._is_back = False
        self._num_to_watch, self._has_overslept, self._has_slept, self._strides = _RESYNC_RISES, False, False, 1

    def resume(self, now_ns: int) -> None:
        """Nobody has read for a while, and the tick went on: `pause_s` until the next increment that isn't due yet."""
        self._waiting_since_ns, self._has_slept, self._is_ready = now_ns, False, False
        if self._rise_ns is None or self.tick_s is None:
            self._rise_ns = None
            return
        passed_s = (now_ns - self._rise_ns) * _NS + self._lead_s() + _MIN_SLEEP_S
        self._strides, self._num_to_watch = max(1, math.ceil(passed_s / self.tick_s)), 0
        if self._strides > _MAX_STRIDES:
            self._rise_ns = None

    def base(self, now_ns: int) -> None:
        """The first reading after `resume`, to know the next increment by."""
        self._get_ready(now_ns)
        self._is_back = True

    def rise(self, earliest_ns: int, latest_ns: int) -> bool:
        """The counter rose between these two readings. Whether that is an increment that was waited for.

        It is not, if the sampler slept over several ticks on purpose: then it begins to wait for the next one.
        """
        if self._has_slept and self._strides > 1 and not self._is_ready:
            self._get_ready(latest_ns)
            return False
        if self._has_slept:
            self._oversleep()
        else:
            self._learn(earliest_ns, latest_ns)
            self._num_to_watch, self._has_overslept = max(0, self._num_to_watch - 1), False
        self._rise_ns = (earliest_ns + latest_ns) / 2
        self._is_vague, self._waiting_since_ns = self._has_slept, latest_ns
        self._has_slept = self._is_ready = self._is_back = False
        self._strides = 1 if self._num_to_watch else self._num_ticks_apart()
        return True

    def no_rise(self) -> None:
        """The counter was read and had not moved."""
        if self._has_slept and self._strides > 1 and not self._is_ready:
            # it should have moved several times: the tick is another one
            self._forget_ticks()
            self._num_to_watch, self._strides, self._rise_ns = _RESYNC_RISES, 1, None
        self._has_slept = False

    def pause_s(self, now_ns: int) -> float:
        tick_s = self.tick_s
        if self.may_sleep and self._rise_ns is not None and tick_s is not None and not self._num_to_watch:
            due_s = (self._rise_ns - now_ns) * _NS + self._strides * tick_s
            if self._is_back and due_s < -self._lead_s():  # it came before anybody looked
                self._strides += 1
                due_s += tick_s
            left_s = due_s - self._lead_s()
            if left_s > _MIN_SLEEP_S:
                self._has_slept = True
                return left_s
        waited_s = (now_ns - self._waiting_since_ns) * _NS
        finest_s = max(_MIN_POLL_S, (tick_s or 0.0) / _FINENESS, self._lead_s() / _MAX_READS_EARLY)
        return min(max(waited_s / _FINENESS, finest_s), _MAX_POLL_S)

    def _get_ready(self, now_ns: int) -> None:
        """It has slept over several ticks, and waits for the next: that which it woke up for, if it isn't too late."""
        self._has_slept, self._is_ready, self._waiting_since_ns = False, True, now_ns
        if self._rise_ns is not None and self.tick_s is not None:
            passed_s = (now_ns - self._rise_ns) * _NS - self._lead_s() / 2
            self._strides = max(self._strides, math.ceil(passed_s / self.tick_s))

    def _num_ticks_apart(self) -> int:
        return max(1, math.ceil(self._spacing_s / self.tick_s - 0.1)) if self.tick_s and self.may_sleep else 1

    def _lead_s(self) -> float:
        """How long before an increment is due to wake up: by what was wrong lately, and a little more."""
        tick_s = self.tick_s or 0.0
        return min(tick_s / 2, 1.25 * max(self._errors, default=0.0) + tick_s / _FINENESS + self.reading_s)

    def _oversleep(self) -> None:
        """Wake up earlier for a while. If that happens twice running, the tick has changed: stay awake for some."""
        self._errors.append(2 * self._lead_s())
        if self._has_overslept:
            self._forget_ticks()
            self._num_to_watch = _RESYNC_RISES
        self._has_overslept = True

    def _learn(self, earliest_ns: int, latest_ns: int) -> None:
        """How far apart increments are, and by how much the expected moment lay outside of the two readings."""
        tick_s = self.tick_s
        if self._rise_ns is None or self._is_vague:
            return
        gap_s, num_ticks = ((earliest_ns + latest_ns) / 2 - self._rise_ns) * _NS, 1
        if tick_s is not None and not self._num_to_watch:
            num_ticks = max(1, round(gap_s / tick_s)) if self._strides > 1 else 1
            due_ns = self._rise_ns + num_ticks * tick_s / _NS
            self._errors.append(max(0.0, earliest_ns - due_ns, due_ns - latest_ns) * _NS)
        self._gaps.append((gap_s / num_ticks, num_ticks))
        self._tick_s = statistics.median([gap_s for gap_s, count in self._gaps for _ in range(count)])

    def _forget_ticks(self) -> None:
        self._gaps.clear()
        self._tick_s = None
