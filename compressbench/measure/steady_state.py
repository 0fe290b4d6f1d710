"""Warm-up until the calls have stopped changing, at the shapes that will be measured."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from typing import NamedTuple

from compressbench.core.protocols import Clock
from compressbench.measure.drift import CALLS_PER_BLOCK, FEWEST_JUDGED, DriftRule, Steadiness, judge, medians_of
from compressbench.records.measurement import WarmUp

_MOST_CALLS = 1000
_MOST_BLOCKS = 400
_GROWTH = 1.15
_CALLS_JUDGED_EARLY = 20
_CALLS_OF_A_SLOW_MODEL = 30


class WarmUpRule(NamedTuple):
    """At least `min_calls` and `min_s`, then until the calls are steady, for at most `max_s`.

    Before `max_s` that takes 20 calls after the truncated beginning and a look as sharp as `drift.resolution`; at
    `max_s` it is enough that no drift is seen. A model so slow that `max_s` does not hold `min_calls` gets them all the
    same, and if they drift up to 30, within `cap_s`.
    """

    min_calls: int = 10
    min_s: float = 0.5
    max_s: float = 5.0
    cap_s: float = 60.0
    drift: DriftRule = DriftRule()


class CallSeries:
    """Durations of calls in bounded memory: all of the first thousand, then medians of five, of ten, of twenty, ...

    A block of ten or more that was merged from earlier ones is the mean of their medians.
    """

    def __init__(self) -> None:
        self.width = 1
        self.values: list[float] = []
        self._pending: list[float] = []

    def add(self, seconds: float) -> None:
        self._pending.append(seconds)
        if len(self._pending) == self.width:
            self.values.append(statistics.median(self._pending))
            self._pending.clear()
            if len(self.values) == (_MOST_CALLS if self.width == 1 else _MOST_BLOCKS):
                self._merge()

    def _merge(self) -> None:
        by = CALLS_PER_BLOCK if self.width == 1 else 2
        self.values = medians_of(self.values, by)
        self.width *= by


def warm_up(call: Callable[[int], None], clock: Clock, rule: WarmUpRule) -> tuple[WarmUp, float]:
    """Run call(0), call(1), ... until the rule is met; what was run and thrown away, and a typical duration in seconds.

    The detector is asked only when the number of calls has grown by 15 %.
    """
    series, first_call_s, num_looked_at = CallSeries(), 0.0, 0
    begun = clock()
    for num_calls in itertools.count(1):
        before = clock()
        call(num_calls - 1)
        after = clock()
        seconds, elapsed = (after - before) / 1e9, (after - begun) / 1e9
        if num_calls == 1:
            first_call_s = seconds
        series.add(seconds)
        is_over = elapsed >= rule.cap_s or (elapsed >= rule.max_s and num_calls >= _num_owed(rule))
        is_due = num_calls >= max(rule.min_calls, num_looked_at * _GROWTH) and elapsed >= rule.min_s
        if not (is_over or is_due):
            continue
        num_looked_at = num_calls
        state = _look(series, rule)
        reason = _objection(state, num_calls, elapsed, rule)
        if is_over or (not reason and _is_convincing(state, elapsed, rule)):
            break
    word = "not-reached" if reason else "yes"
    found = WarmUp(num_calls=num_calls, seconds=elapsed, first_call_s=first_call_s, steady_state=word, reason=reason)
    return found, statistics.median(series.values) if state is None else state.typical


def _num_owed(rule: WarmUpRule) -> int:
    """How many calls a drifting model gets though `max_s` has passed."""
    return max(rule.min_calls, _CALLS_OF_A_SLOW_MODEL)


def _look(series: CallSeries, rule: WarmUpRule) -> Steadiness | None:
    """None for fewer than five calls."""
    if len(series.values) < FEWEST_JUDGED:
        return None
    return judge(series.values, series.width, rule.drift)


def _objection(state: Steadiness | None, num_calls: int, elapsed: float, rule: WarmUpRule) -> str:
    needed = max(rule.min_calls, FEWEST_JUDGED)
    if state is None or num_calls < needed:
        return f"only {num_calls} calls in {elapsed:.1f} s: a judgement needs {needed}"
    return state.drift


def _is_convincing(state: Steadiness | None, elapsed: float, rule: WarmUpRule) -> bool:
    if state is None:
        return False
    is_sharp = state.num_kept >= _CALLS_JUDGED_EARLY and state.resolution <= rule.drift.resolution
    return is_sharp or elapsed >= rule.max_s
