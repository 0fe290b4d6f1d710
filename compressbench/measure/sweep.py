"""The batch sweep of the offline scenario: which batch size each arm should run at. It chooses; it doesn't compare.

Sizes go up one by one. At each size the arms run in mirrored order, A B B A, so that every arm is timed twice and a drift
meets all alike; how far its two passes disagree says how noisy the sweep is. What the arms are worth is measured
afterwards, in interleaved blocks at the sizes that were chosen.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from compressbench.core.errors import InputError
from compressbench.core.garbage import no_garbage_collection
from compressbench.core.protocols import Clock
from compressbench.records.measurement import Arm, SweepPoint

Call = Callable[[int], None]
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "failed to allocate memory", "bad allocation", "bad_alloc")
# a normal deviate's 97.5 % point, times the square root of two because two throughputs are compared
_NOISE_FACTOR = 1.96 * math.sqrt(2)


class SweepRule(NamedTuple):
    """How long a size is timed and when the ascent ends.

    Each of an arm's two passes at a size takes at least `min_calls` calls and `min_s` seconds, after at least
    `warm_up_calls` calls and `warm_up_s` seconds that are thrown away. An arm's ascent ends after `num_falls` sizes in a
    row whose throughput is more than `fall` below its best so far. A size within `tolerance` of the best is as good as the
    best, or one within the 95 % interval of their difference where that is wider, up to `max_tolerance`: a noisy machine
    must not make a small batch look as good as a large one. A size can be chosen only if nine calls in ten take at most
    `limit_s`, if that is given.
    """

    min_calls: int = 5
    min_s: float = 0.25
    warm_up_calls: int = 2
    warm_up_s: float = 0.1
    fall: float = 0.05
    num_falls: int = 2
    tolerance: float = 0.01
    max_tolerance: float = 0.05
    limit_s: float | None = None


class Swept(NamedTuple):
    """All points by size and arm, and each arm's best size; an arm that failed at every size has none."""

    points: list[SweepPoint]
    best: dict[Arm, int]


@dataclass
class _Ascent:
    """One arm on its way up. `passes` has by size the calls' nanoseconds of each pass, sizes in ascending order."""

    rule: SweepRule
    passes: dict[int, list[list[int]]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def rates(self) -> dict[int, float]:
        """Samples per second over both passes, where both ran."""
        return {size: _rate(size, timed) for size, timed in self.passes.items() if size not in self.failures}

    def is_over(self) -> bool:
        if self.failures:
            return True
        rates = list(self.rates().values())
        last = rates[-self.rule.num_falls :]
        return len(rates) > self.rule.num_falls and max(last) < (1 - self.rule.fall) * max(rates)

    def tolerance(self) -> float:
        """By how much the best may be missed: `se` is the standard error of one size's log rate, pooled over sizes."""
        steps = [
            math.log(_mean(timed[0]) / _mean(timed[1])) for size, timed in self.passes.items() if size in self.rates()
        ]
        se = math.sqrt(sum((step / 2) ** 2 for step in steps) / len(steps))
        return min(max(self.rule.tolerance, _NOISE_FACTOR * se), self.rule.max_tolerance)

    def best(self) -> int | None:
        """The smallest size that is as good as the best one: it needs less memory and answers sooner."""
        rates = {size: rate for size, rate in self.rates().items() if self.is_within(size) is not False}
        if not rates:
            return None
        enough = (1 - self.tolerance()) * max(rates.values())
        return min(size for size, rate in rates.items() if rate >= enough)

    def is_within(self, size: int) -> bool | None:
        """Whether nine calls in ten kept the limit; None without a limit."""
        if self.rule.limit_s is None:
            return None
        calls = [each for one_pass in self.passes[size] for each in one_pass]
        return sum(each > self.rule.limit_s * 1e9 for each in calls) <= len(calls) / 10

    def points(self, arm: Arm) -> Iterable[SweepPoint]:
        rates = self.rates()
        for size, timed in self.passes.items():
            calls = tuple(each for one_pass in timed for each in one_pass)
            yield SweepPoint(
                arm=arm,
                batch_size=size,
                samples_per_s=rates.get(size),
                num_calls=len(calls),
                latencies_ns=calls,
                failure=self.failures.get(size, ""),
                is_within_limit=self.is_within(size),
            )


def sweep(
    arms: Sequence[Arm],
    call_of: Callable[[Arm, int], Call],
    batch_sizes: Iterable[int],
    rule: SweepRule | None = None,
    clock: Clock = time.perf_counter_ns,
) -> Swept:
    """Time every arm at every size in ascending order until it runs out of memory or has clearly passed its best.

    `call_of(arm, size)` makes inputs of that size and gives the call on them. Running out of memory ends an arm's ascent
    and is recorded as that point's failure; every other error is raised. Raises InputError for sizes that are none.
    """
    sizes = sorted(set(batch_sizes))
    if not sizes or sizes[0] < 1:
        raise InputError("batch sizes are positive whole numbers", got=str(sizes), do="Give at least one.")
    rule = rule or SweepRule()
    ascents = {arm: _Ascent(rule) for arm in arms}
    order = list(arms)
    gc.collect()
    for size in sizes:
        going = [arm for arm in order if not ascents[arm].is_over()]
        _time_size(going, size, call_of, ascents, clock)
        order.reverse()
    best = {arm: ascent.best() for arm, ascent in ascents.items()}
    points = [point for arm, ascent in ascents.items() for point in ascent.points(arm)]
    points.sort(key=lambda point: point.batch_size)
    return Swept(points, {arm: size for arm, size in best.items() if size is not None})


def seconds_of(rule: SweepRule, num_sizes: int, num_arms: int) -> float:
    """About how long a sweep takes at most, if `min_s` holds at least `min_calls` calls."""
    return num_sizes * num_arms * 2 * (rule.warm_up_s + rule.min_s)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory left: torch's errors on CUDA and CPU, ONNX Runtime's, and Python's."""
    if isinstance(error, MemoryError):
        return True
    # torch.OutOfMemoryError is a RuntimeError that says so
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def _time_size(
    going: Sequence[Arm],
    size: int,
    call_of: Callable[[Arm, int], Call],
    ascents: dict[Arm, _Ascent],
    clock: Clock,
) -> None:
    calls: dict[Arm, Call] = {}
    for arm in (*going, *reversed(going)):
        ascent = ascents[arm]
        if size in ascent.failures:
            continue
        passes = ascent.passes.setdefault(size, [])
        try:
            if arm not in calls:
                calls[arm] = call_of(arm, size)
            passes.append(_one_pass(calls[arm], ascent.rule, clock))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            ascent.failures[size] = f"{type(error).__name__}: {error}"
        if size in ascent.failures:
            # only here is the error gone, and with its traceback the tensors of the call
            calls.pop(arm, None)
            _free_memory()


def _one_pass(call: Call, rule: SweepRule, clock: Clock) -> list[int]:
    _calls_for(call, rule.warm_up_calls, rule.warm_up_s, clock)
    with no_garbage_collection():
        return _calls_for(call, rule.min_calls, rule.min_s, clock)


def _calls_for(call: Call, min_calls: int, min_s: float, clock: Clock) -> list[int]:
    """Nanoseconds of call(0), call(1), ... until there are enough of them and they have taken long enough."""
    durations: list[int] = []
    begun = clock()
    while len(durations) < min_calls or clock() - begun < min_s * 1e9:
        before = clock()
        call(len(durations))
        durations.append(clock() - before)
    return durations


def _free_memory() -> None:
    """Give back what a failed call held, also to the device, so that it is there for the other arms."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _rate(size: int, passes: Sequence[Sequence[int]]) -> float:
    return size * sum(map(len, passes)) / (sum(map(sum, passes)) / 1e9)


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)
