"""The open loop on a clock that is set by hand: every latency is known to the nanosecond."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from queue_parts import Worker, constant, exponential, served_one_by_one, wait_on

from compressbench.measure.arrivals import arrivals_ns, unit_arrivals
from compressbench.measure.open_loop import GiveUp, serve, sleep_then_spin
from compressbench.measure.rate_search import replayed
from compressbench.testing import FakeClock

MS = 1_000_000


def test_latencies_are_those_of_a_queue_to_the_nanosecond() -> None:
    for seed, rate in enumerate((20.0, 90.0, 110.0, 400.0)):
        clock, arrivals = FakeClock(), arrivals_ns(unit_arrivals(400, seed), rate)
        services = [exponential(10 * MS, seed)(0) + seed for seed in range(400)]
        worker = Worker(clock, services.__getitem__)
        served = serve(worker, arrivals, clock, wait_on(clock))
        expected = served_one_by_one(arrivals, services)
        assert list(served.latencies_ns) == expected
        assert list(served.services_ns) == services
        assert list(served.waits_ns) == [a - b for a, b in zip(expected, services, strict=True)]
        assert replayed(arrivals, services) == expected


def test_every_query_is_answered_once_and_in_order() -> None:
    clock = FakeClock()
    worker = Worker(clock, constant(10 * MS))
    serve(worker, arrivals_ns(unit_arrivals(200, 3), 300.0), clock, wait_on(clock))
    assert [index for index, _ in worker.begun] == list(range(200))


def test_no_query_is_begun_before_it_has_arrived_and_none_is_put_off() -> None:
    clock, arrivals = FakeClock(), arrivals_ns(unit_arrivals(200, 4), 60.0)
    begun_at = clock()
    worker = Worker(clock, exponential(10 * MS, 1))
    served = serve(worker, arrivals, clock, wait_on(clock))
    free = begun_at
    for (_, begun), arrival, service in zip(worker.begun, arrivals, served.services_ns, strict=True):
        assert begun == max(begun_at + arrival, free)
        free = begun + service


def test_a_stall_shows_in_every_query_that_is_scheduled_meanwhile() -> None:
    """A query every 2 ms, answered in 1 ms, and a stall of 1 s in the 100th: coordinated omission would show it once."""
    clock, arrivals = FakeClock(), [2 * MS * (index + 1) for index in range(2000)]
    worker = Worker(clock, lambda number: 1000 * MS if number == 100 else MS)
    latencies = serve(worker, arrivals, clock, wait_on(clock)).latencies_ns
    assert set(latencies[:100]) == {MS}
    # the queue of the stall loses 1 ms with every query: 1000, 999, ... until it is empty
    assert list(latencies[100:1100]) == [(1000 - index) * MS for index in range(1000)]
    assert set(latencies[1100:]) == {MS}


def test_what_comes_late_from_waiting_is_part_of_the_latency_and_is_told_apart() -> None:
    clock, arrivals = FakeClock(), [10 * MS, 20 * MS, 21 * MS, 60 * MS]
    worker = Worker(clock, constant(5 * MS))
    served = serve(worker, arrivals, clock, wait_on(clock, late_ns=70_000))
    assert served.lateness_ns == (70_000, 70_000, 70_000)
    assert served.latencies_ns == (5_070_000, 5_070_000, 9_070_000, 5_070_000)
    assert served.services_ns == (5 * MS,) * 4


@pytest.mark.parametrize("max_over", [0, 3])
def test_a_trial_is_given_up_with_the_first_query_too_many_above_the_limit(max_over: int) -> None:
    clock = FakeClock()
    worker = Worker(clock, lambda number: (1 if number % 2 else 30) * MS)
    give_up = GiveUp(limit_ns=20 * MS, max_over=max_over)
    served = serve(worker, [100 * MS * (index + 1) for index in range(20)], clock, wait_on(clock), give_up)
    assert len(served.latencies_ns) == 2 * max_over + 1
    assert sum(latency > 20 * MS for latency in served.latencies_ns) == max_over + 1


def test_a_latency_of_exactly_the_limit_is_within_it() -> None:
    clock = FakeClock()
    worker = Worker(clock, constant(20 * MS))
    served = serve(worker, [100 * MS, 200 * MS], clock, wait_on(clock), GiveUp(20 * MS, 0))
    assert len(served.latencies_ns) == 2


class Ticking:
    """A clock that goes on by 100 ns whenever it is looked at, and a sleep that comes back late, or early."""

    def __init__(self, error_ns: Callable[[], int]) -> None:
        self.now_ns, self.slept, self._error_ns = 0, list[float](), error_ns

    def clock(self) -> int:
        self.now_ns += 100
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += max(0, round(seconds * 1e9) + self._error_ns())


def test_waiting_is_asleep_first_and_awake_at_the_end_and_so_on_time() -> None:
    draw = random.Random(0)
    machine = Ticking(lambda: draw.randrange(50_000, 190_000))
    wait_until = sleep_then_spin(machine.clock, machine.sleep)
    for due in range(10 * MS, 1000 * MS, 7 * MS):
        now = wait_until(due)
        assert due <= now < due + 100
        assert now == machine.now_ns
    assert len(machine.slept) == 142
    assert sum(machine.slept) > 0.95


def test_a_moment_that_is_near_is_waited_for_awake_and_one_that_is_past_not_at_all() -> None:
    machine = Ticking(lambda: 0)
    wait_until = sleep_then_spin(machine.clock, machine.sleep)
    assert wait_until(150_000) == 150_000
    assert wait_until(1000) == 150_100
    assert machine.slept == []


def test_a_sleep_that_ends_too_early_is_slept_again() -> None:
    machine = Ticking(lambda: -3 * MS)
    now = sleep_then_spin(machine.clock, machine.sleep)(20 * MS)
    assert 20 * MS <= now < 20 * MS + 100
    assert len(machine.slept) > 1


def test_a_sleep_that_ends_much_too_late_is_told() -> None:
    machine = Ticking(lambda: 5 * MS)
    assert sleep_then_spin(machine.clock, machine.sleep)(20 * MS) == pytest.approx(24.8 * MS, abs=1000)
