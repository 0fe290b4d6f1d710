"""In which order rates are tried: up or down in growing steps until one is kept and one is not, then halving between.

Where to begin is computed: arrivals and service times give the latencies of a queue without running it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass
class RateSearch:
    """One arm's search in one round, in the logarithm of the rate.

    It begins at `guess`. The first step is `step` (a ratio above 1) and grows as a power of two; the search ends when the
    lowest rate that was not kept is at most `resolution` (0.02: 2 %) above the highest that was, or when not even `floor`
    was kept.
    """

    guess: float
    floor: float
    resolution: float
    step: float
    kept: float | None = None
    not_kept: float | None = None
    is_hopeless: bool = False

    def __post_init__(self) -> None:
        self._next: float | None = max(self.guess, self.floor)
        self._log_step = math.log(self.step)

    @property
    def next_rate(self) -> float | None:
        """The rate to try now; None at the end."""
        return self._next

    def tell(self, is_kept: bool) -> None:
        """Whether `next_rate` was kept."""
        rate = self._next
        if rate is None:
            raise ValueError("this search is over")
        if is_kept:
            self.kept = rate
        else:
            self.not_kept = rate
        self._next = self._after()

    def _after(self) -> float | None:
        kept, not_kept = self.kept, self.not_kept
        if kept is not None and not_kept is not None:
            is_narrow = not_kept / kept <= (1 + self.resolution) * (1 + 1e-12)
            return None if is_narrow else math.sqrt(kept * not_kept)
        ratio = math.exp(self._log_step)
        self._log_step *= 2
        if kept is not None:
            return kept * ratio
        assert not_kept is not None  # noqa: S101 -- one of them was told just now
        if not_kept <= self.floor:
            self.is_hopeless = True
            return None
        return max(not_kept / ratio, self.floor)


def highest_where(holds: Callable[[float], bool], low: float, high: float, resolution: float) -> float | None:
    """By halving, the highest rate at which something holds that holds at all rates below one; None if not at `low`."""
    if not holds(low):
        return None
    while high / low > 1 + resolution:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def first_from_above(holds: Callable[[float], bool], low: float, high: float, resolution: float) -> float | None:
    """Step by step, the highest rate at which something holds that may fail again further down; None if it never does."""
    rate = high
    while rate >= low:
        if holds(rate):
            return rate
        rate /= 1 + resolution
    return None


def replayed(arrivals_ns: Sequence[int], services_ns: Sequence[int]) -> list[int]:
    """Latencies of one worker who answers in the order of arrival (Lindley's recursion); services go round and round."""
    latencies: list[int] = []
    free_ns, num_services = 0, len(services_ns)
    for index, arrival in enumerate(arrivals_ns):
        free_ns = max(arrival, free_ns) + services_ns[index % num_services]
        latencies.append(free_ns - arrival)
    return latencies
