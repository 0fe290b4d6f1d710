"""The best rate of several kinds of work within a given time, in turns, so that a disturbance doesn't hit one kind only."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from compressbench.core.statistics import median

Action = Callable[[], Any]


class Lap(NamedTuple):
    """One repeat. `cpu_share` is the CPU time per wall second and thread, None if the work isn't done on the CPU."""

    seconds: float
    cpu_share: float | None = None


Stopwatch = Callable[[Action], Lap]
"""Runs something once."""

_NUM_TURNS = 5
_MIN_REPEATS = 3
# of all the seconds, what one repeat of a larger size may take by the rate of the last one, which may have been disturbed
_LONGEST_REPEAT = 0.1
_TOO_SLOW = 0.5
# less than all, because threads also wait for each other at the end of a product
_FULL_SHARE = 0.8
_UNSUPPORTED = (RuntimeError, NotImplementedError, TypeError, AttributeError, ValueError)


class Rate(NamedTuple):
    """Amounts per second at the size that was best: the best of its repeats, and their median.

    `is_clean`: in the best repeat no other process took a noticeable part of the CPU.
    """

    best: float
    median: float
    size: int
    is_clean: bool


class Trial:
    """One kind of work at growing sizes. `make` prepares a size, `amount` says how much one repeat of it does.

    What takes most of the time at its smallest size is given up as too slow, unless it `is_required`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        amount: Callable[[int], float],
        make: Callable[[int], Action],
        *,
        is_required: bool = False,
    ) -> None:
        self._sizes, self._amount, self._make, self._is_required = list(sizes), amount, make, is_required
        self._actions = dict[int, Action]()
        self._laps = dict[int, list[Lap]]()
        self.why_not = ""

    @property
    def rate(self) -> Rate | None:
        """None if nothing could be run; `why_not` says why."""
        rates = []
        for size, laps in self._laps.items():
            best = min(laps)
            middle = median([lap.seconds for lap in laps])
            is_clean = best.cpu_share is None or best.cpu_share >= _FULL_SHARE
            amount = self._amount(size)
            rates.append(Rate(amount / best.seconds, amount / middle, size, is_clean))
        return max(rates, default=None)

    def is_settled(self, total_s: float) -> bool:
        """Whether more turns would change little: it is clean and no larger size is left, or it can't be done at all."""
        return not self._sizes or (self.rate is not None and self.rate.is_clean and self._next(total_s) in self._laps)

    def turn(self, seconds: float, stopwatch: Stopwatch, total_s: float) -> None:
        """Repeat one size for `seconds`, at least once: the next one as long as it isn't too slow, else the best."""
        size = self._next(total_s)
        if size is None or min(self._laps.get(size, [Lap(0.0)])).seconds > total_s:
            return
        try:
            action = self._actions.get(size) or self._actions.setdefault(size, self._make(size))
            laps, spent = list[Lap](), 0.0
            while not laps or spent + min(laps).seconds < seconds:
                laps.append(stopwatch(action))
                spent += laps[-1].seconds
        except _UNSUPPORTED as error:
            self._give_up(" ".join(str(error).split())[:160] or type(error).__name__)
            return
        if not self._laps and not self._is_required and spent > max(seconds, _TOO_SLOW * total_s):
            self._give_up(f"too slow: once at size {size} took {spent:.2g} s of {total_s:.2g} s")
            return
        self._laps.setdefault(size, []).extend(laps)

    def finish(self, stopwatch: Stopwatch) -> None:
        """See that the best size has three repeats."""
        while (best := self.rate) is not None and len(self._laps[best.size]) < _MIN_REPEATS:
            self._laps[best.size].append(stopwatch(self._actions[best.size]))

    def _give_up(self, why_not: str) -> None:
        """Larger sizes won't do either; those that did stay."""
        self._sizes = list(self._laps)
        self.why_not = why_not

    def _next(self, total_s: float) -> int | None:
        best = self.rate
        untried = [size for size in self._sizes if size not in self._laps]
        if untried and (best is None or self._amount(untried[0]) / best.best <= _LONGEST_REPEAT * total_s):
            return untried[0]
        return None if best is None else best.size


def take_turns(
    trials: Sequence[Trial], seconds: float, stopwatch: Stopwatch, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Let each trial have several turns within `seconds` altogether, and see that it has enough repeats."""
    begun = clock()
    for turn in range(_NUM_TURNS):
        for at, trial in enumerate(trials):
            left = max(0.0, seconds - (clock() - begun))
            trial.turn(left / ((_NUM_TURNS - turn) * len(trials) - at), stopwatch, seconds)
    for trial in trials:
        trial.finish(stopwatch)
