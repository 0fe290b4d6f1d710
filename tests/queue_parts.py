"""A worker on a clock that is set by hand, and what is known of queues."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from compressbench.measure.calls import CallDetails
from compressbench.measure.server import ServerTools
from compressbench.testing import FakeClock

Services = Callable[[int], int]


class Worker:
    """Takes services_ns(n) nanoseconds for its n-th call. With `first_token_share` it gives a first token so far in."""

    def __init__(self, clock: FakeClock, services_ns: Services, first_token_share: float | None = None) -> None:
        self._clock, self._services_ns, self._share = clock, services_ns, first_token_share
        self.num_calls = 0
        self.begun: list[tuple[int, int]] = []
        self._first: list[int] = []

    def __call__(self, index: int) -> None:
        taken = self._services_ns(self.num_calls)
        self.begun.append((index, self._clock.now_ns))
        self._clock.now_ns += taken
        self.num_calls += 1
        if self._share is not None:
            self._first.append(round(taken * self._share))

    def take(self) -> CallDetails:
        found, self._first = CallDetails(first_token_ns=tuple(self._first)), []
        return found


def wait_on(clock: FakeClock, late_ns: int = 0) -> Callable[[int], int]:
    """Waits for a moment of the fake clock, and comes back so much too late."""

    def wait_until(due_ns: int) -> int:
        assert due_ns > clock.now_ns, "only an idle worker waits"
        clock.now_ns = due_ns + late_ns
        return clock.now_ns

    return wait_until


def tools(clock: FakeClock, late_ns: int = 0) -> ServerTools:
    return ServerTools(clock, wait_on(clock, late_ns), 100_000)


def constant(nanoseconds: int) -> Services:
    return lambda number: nanoseconds


def exponential(mean_ns: float, seed: int) -> Services:
    draw = random.Random(seed)
    return lambda number: 1 + int(draw.expovariate(1 / mean_ns))


def served_one_by_one(arrivals: Sequence[int], services: Sequence[int]) -> list[int]:
    """Latencies by brute force: nanoseconds pass one event at a time, and who came first is answered first."""
    waiting, latencies, now, coming = list[int](), dict[int, int](), 0, 0
    while len(latencies) < len(arrivals):
        while coming < len(arrivals) and arrivals[coming] <= now:
            waiting.append(coming)
            coming += 1
        if not waiting:
            now = arrivals[coming]
            continue
        query = waiting.pop(0)
        now += services[query]
        latencies[query] = now - arrivals[query]
    return [latencies[query] for query in range(len(arrivals))]


def share_late_md1(load: float, level: float) -> float:
    """P(latency > level) of a queue with Poisson arrivals and services of exactly 1 (Erlang 1909, Crommelin 1932)."""
    wait = level - 1
    if wait < 0:
        return 1.0
    terms = [
        (load * (count - wait)) ** count / math.factorial(count) * math.exp(-load * (count - wait))
        for count in range(math.floor(wait) + 1)
    ]
    return 1 - (1 - load) * math.fsum(terms)


def highest_load_md1(level: float, late: float) -> float:
    """The load at which so large a share of queries takes longer than `level`."""
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if share_late_md1(middle, level) > late else (middle, high)
    return low


def highest_rate_mm1(rate_of_service: float, limit_s: float, late: float) -> float:
    """Latencies of a queue with exponential services are exponential with the rate mu - lambda."""
    return rate_of_service - math.log(1 / late) / limit_s
