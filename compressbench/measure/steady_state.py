"""Warm-up until the calls have stopped changing, at the shapes that will be measured."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from typing import NamedTuple

from compressbench.core.protocols import Clock
from compressbench.records.record import WarmUp

_CALLS_PER_BLOCK = 5
_BLOCKS_COMPARED = 4


class WarmUpRule(NamedTuple):
    """At least `min_calls` and `min_s`, then until steady, for at most `max_s`.

    A model so slow that `max_s` does not hold `min_calls` gets them all the same, up to `cap_s`.
    """

    min_calls: int = 10
    min_s: float = 0.5
    max_s: float = 5.0
    cap_s: float = 60.0
    tolerance: float = 0.05


def warm_up(call: Callable[[int], None], clock: Clock, rule: WarmUpRule) -> tuple[WarmUp, float]:
    """Run call(0), call(1), ... until the rule is met; what was run and thrown away, and the last median in seconds.

    Steady: the medians of the last two groups of up to twenty calls agree within the tolerance.
    """
    begun = clock()
    durations: list[float] = []
    for index in itertools.count():
        before = clock()
        call(index)
        durations.append((clock() - before) / 1e9)
        elapsed = (clock() - begun) / 1e9
        is_over = elapsed >= (rule.max_s if len(durations) >= rule.min_calls else rule.cap_s)
        is_warm = len(durations) >= rule.min_calls and elapsed >= rule.min_s and is_steady(durations, rule.tolerance)
        if is_warm or is_over:
            break
    state = "yes" if is_steady(durations, rule.tolerance) else "not-reached"
    result = WarmUp(num_calls=len(durations), seconds=elapsed, first_call_s=durations[0], steady_state=state)
    return result, statistics.median(durations[-_CALLS_PER_BLOCK * _BLOCKS_COMPARED :])


def is_steady(durations: list[float], tolerance: float) -> bool:
    """Whether the last calls are as long as those before them; with fewer than ten calls, never."""
    group = min(_CALLS_PER_BLOCK * _BLOCKS_COMPARED, len(durations) // 2)
    if group < _CALLS_PER_BLOCK:
        return False
    recent = statistics.median(durations[-group:])
    before = statistics.median(durations[-2 * group : -group])
    return abs(recent - before) <= tolerance * before
