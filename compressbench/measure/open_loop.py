"""An open loop: queries come when the schedule says, whether or not the server is done with those before.

One worker answers them one by one in the order of their arrival. A latency counts from the scheduled arrival, so that the
time in the queue is part of it; an overdue query is neither skipped nor put off, which would leave out just those that a
stall of the server makes late (coordinated omission). No thread is needed for that: while the worker is busy, the queue is
in the schedule. What stands between a network and the model is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from compressbench.core.protocols import Clock

Call = Callable[[int], None]
WaitUntil = Callable[[int], int]
"""Returns not before the clock has reached these nanoseconds, and what it then says."""

# an operating system's sleep comes back late by some 0.05 to 0.15 ms; the rest of the way is spent looking at the clock
SPIN_NS = 200_000


class GiveUp(NamedTuple):
    """When a trial is lost: as soon as more than `max_over` queries took longer than `limit_ns`."""

    limit_ns: int
    max_over: int


class Served(NamedTuple):
    """Of every query that was answered, in order: nanoseconds from its scheduled arrival to its answer, and those of the
    answering alone. `lateness_ns` has, of each query that found the worker idle, how long after its arrival it was begun.
    """

    latencies_ns: tuple[int, ...]
    services_ns: tuple[int, ...]
    lateness_ns: tuple[int, ...]

    @property
    def waits_ns(self) -> tuple[int, ...]:
        """From the scheduled arrival to the beginning of the answering."""
        return tuple(latency - service for latency, service in zip(self.latencies_ns, self.services_ns, strict=True))


def serve(
    call: Call, arrivals_ns: Sequence[int], clock: Clock, wait_until: WaitUntil, give_up: GiveUp | None = None
) -> Served:
    """Answer query i with call(i), arrivals_ns[i] nanoseconds from now or as soon after that as the worker is free.

    With `give_up` the trial ends as soon as it is lost; what was answered until then is returned.
    """
    latencies: list[int] = []
    services: list[int] = []
    lateness: list[int] = []
    num_left = -1 if give_up is None else give_up.max_over
    limit_ns = 0 if give_up is None else give_up.limit_ns
    begun = done = clock()
    for index, arrival in enumerate(arrivals_ns):
        due = begun + arrival
        started = done
        if done < due:
            started = wait_until(due)
            lateness.append(started - due)
        call(index)
        done = clock()
        latencies.append(done - due)
        services.append(done - started)
        if give_up is not None and done - due > limit_ns:
            num_left -= 1
            if num_left < 0:
                break
    return Served(tuple(latencies), tuple(services), tuple(lateness))


def sleep_then_spin(clock: Clock, sleep: Callable[[float], None], spin_ns: int = SPIN_NS) -> WaitUntil:
    """Waits asleep, and awake for the last `spin_ns`: cheap for others, and on time to about a microsecond."""

    def wait_until(due_ns: int) -> int:
        now = clock()
        while due_ns - now > spin_ns:
            sleep((due_ns - now - spin_ns) / 1e9)
            now = clock()
        while now < due_ns:
            now = clock()
        return now

    return wait_until
