from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from compressbench.core.errors import MeterError
from compressbench.meters import edges
from compressbench.meters.edges import EdgeSampler, in_thread
from compressbench.meters.probe import MIN_SPACING_S, Edge
from compressbench.testing.event_clock import EventClock
from compressbench.testing.nvml_device import FakeGpu


class Bench:
    """A counter of a fake GPU under a sampler, in simulated time. `read` may be replaced to break it."""

    def __init__(self, gpu: FakeGpu | None = None, *, late_s: Callable[[], float] | None = None, **settings: Any):
        self.clock, self.gpu, self.num_reads = EventClock(), gpu or FakeGpu(), 0
        self.begin_ns = self.clock()
        self.read: Callable[[], float] = lambda: self.gpu.counter_mj(self.now_s) * 1e-3
        timing = self.clock.timing
        if late_s is not None:
            timing = timing._replace(background=lambda step: self.clock.attach(lambda: step() + late_s()))
        self.sampler = EdgeSampler(self._read, name="the counter", timing=timing, **settings)

    def _read(self) -> float:
        self.num_reads += 1
        return self.read()

    @property
    def now_s(self) -> float:
        return (self.clock() - self.begin_ns) * 1e-9

    def run(self, seconds: float) -> Bench:
        if not self.sampler.is_running:
            self.sampler.start()
        self.clock.advance(seconds)
        return self

    def edges_after(self, second: float) -> list[Edge]:
        return [edge for edge in self.sampler.log().edges if edge.earliest_ns >= self.begin_ns + second * 1e9]

    def true_joules(self, moment_ns: int) -> float:
        return self.gpu.counter_mj((moment_ns - self.begin_ns) * 1e-9) * 1e-3


@pytest.mark.parametrize("late_s", [0.0, 0.004])
@pytest.mark.parametrize("gpu", [
    FakeGpu(),
    FakeGpu(tick_s=0.02, jitter=0.3),
    FakeGpu(tick_s=0.1, jitter=0.4, lag_s=0.02),
    FakeGpu(tick_s=0.001, jitter=0.1),
    FakeGpu(slow_at_s=3.0),
    FakeGpu(tick_s=0.01, slow_at_s=3.0),
    FakeGpu(tick_s=0.1, slow_at_s=3.0, slow_factor=0.1),
])  # fmt: skip
def test_every_edge_lies_between_its_two_readings(gpu: FakeGpu, late_s: float) -> None:
    randomly = random.Random(1)
    bench = Bench(gpu, late_s=lambda: randomly.expovariate(1 / late_s) if late_s else 0.0).run(10.0)
    logged = bench.sampler.log().edges
    assert len(logged) > 6
    for edge in logged:
        assert bench.true_joules(edge.earliest_ns) < edge.joules == bench.true_joules(edge.latest_ns)
    assert bench.sampler.log().faults == ()


@pytest.mark.parametrize(
    ("tick_s", "jitter", "most"), [(0.1, 0.0, 6), (0.02, 0.0, 6), (0.1, 0.2, 25), (0.001, 0.0, 12)]
)
def test_it_reads_a_few_times_per_edge_and_knows_the_edge_within_a_few_hundredths(
    tick_s: float, jitter: float, most: float
) -> None:
    bench = Bench(FakeGpu(tick_s=tick_s, jitter=jitter)).run(3.0)
    bench.num_reads = 0
    bench.run(20.0)
    found = bench.edges_after(3.0)
    assert bench.num_reads / len(found) < most
    assert len(found) >= 0.9 * 20 / (tick_s * math.ceil(MIN_SPACING_S / tick_s - 0.1))
    narrow = [edge for edge in found if edge.width_ns <= (0.04 if jitter else 0.015) * max(tick_s, 0.01) * 1e9]
    assert len(narrow) >= (0.8 if jitter else 0.95) * len(found)


@pytest.mark.parametrize(("factor", "tick_s"), [(10.0, 1.0), (0.1, 0.01)])
def test_a_tick_that_changes_is_learned_and_costs_no_more_than_a_hundred_readings_per_tick(
    factor: float, tick_s: float
) -> None:
    bench = Bench(FakeGpu(slow_at_s=5.0, slow_factor=factor)).run(5.0)
    bench.num_reads = 0
    bench.run(10.0)
    assert bench.num_reads < 130 * 10 / min(tick_s, 0.1)
    assert bench.sampler.tick_s == pytest.approx(tick_s, rel=0.05)
    bench.num_reads = 0
    bench.run(10.0)
    late = bench.edges_after(15.0)
    assert bench.num_reads / len(late) < 16
    assert all(edge.width_ns < 0.05 * tick_s * 1e9 for edge in late if tick_s > 0.02)


def test_a_fast_counter_that_becomes_slow_is_learned_in_three_ticks() -> None:
    bench = Bench(FakeGpu(tick_s=0.001, slow_at_s=3.0, slow_factor=100.0)).run(3.45)
    assert bench.sampler.tick_s == pytest.approx(0.1, rel=0.05)
    bench.num_reads = 0
    bench.run(10.0)
    assert bench.num_reads / len(bench.edges_after(3.45)) < 5


@pytest.mark.parametrize("tick_s", [0.001, 0.004, 0.01, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("late_s", [0.0005, 0.004, 0.012, 0.03])
def test_however_late_the_thread_wakes_up_it_finds_edges(tick_s: float, late_s: float) -> None:
    randomly = random.Random(5)
    for lateness in ([late_s], [late_s, 0.0, 0.0, 0.0]):
        bench = Bench(FakeGpu(tick_s=tick_s, jitter=0.05), late_s=partial(randomly.choice, lateness)).run(15.0)
        expected = 10.0 / (MIN_SPACING_S + tick_s + 2 * late_s)
        assert len(bench.edges_after(5.0)) > 0.5 * expected
        assert bench.num_reads < 200 * 15


def test_a_thread_that_is_late_now_and_then_does_not_read_through_whole_ticks() -> None:
    randomly = random.Random(3)
    bench = Bench(FakeGpu(tick_s=0.02), late_s=lambda: randomly.uniform(0, 0.002)).run(3.0)
    bench.num_reads = 0
    bench.run(40.0)
    assert bench.num_reads / len(bench.edges_after(3.0)) < 8


def test_readings_far_apart_by_chance_are_no_error_of_what_was_expected() -> None:
    randomly = random.Random(3)
    bench = Bench(FakeGpu(), late_s=lambda: 0.004 if randomly.random() < 0.1 else 0.0).run(3.0)
    bench.num_reads = 0
    bench.run(60.0)
    assert bench.num_reads / len(bench.edges_after(3.0)) < 7.2


def test_a_late_thread_does_not_take_two_ticks_of_a_fast_counter_for_one() -> None:
    randomly = random.Random(3)
    bench = Bench(FakeGpu(tick_s=0.02), late_s=lambda: 0.008 if randomly.random() < 0.33 else 0.0).run(30.0)
    assert bench.sampler.tick_s == pytest.approx(0.02, rel=0.05)


def test_a_thread_that_wakes_up_late_wakes_up_earlier() -> None:
    num_slept_over = num_edges = 0
    for seed in range(3):
        randomly = random.Random(seed)
        bench = Bench(FakeGpu(seed=seed), late_s=partial(randomly.expovariate, 1 / 0.003)).run(60.0)
        found = bench.edges_after(3.0)
        num_edges += len(found)
        num_slept_over += sum(edge.width_ns > 30e6 for edge in found)
    assert num_slept_over < 0.085 * num_edges


def test_edges_of_a_fast_counter_are_as_far_apart_as_the_log_says() -> None:
    bench = Bench(FakeGpu(tick_s=0.001)).run(5.0)
    log = bench.sampler.log()
    assert bench.sampler.tick_s == pytest.approx(0.001, rel=0.05)
    assert log.tick_s == MIN_SPACING_S
    assert len(log.edges) == pytest.approx(5.0 / log.tick_s, rel=0.1)


def test_a_stuck_counter_is_read_less_and_less_often() -> None:
    bench = Bench(FakeGpu(stuck_at_s=2.0)).run(3.0)
    bench.num_reads = 0
    bench.run(60.0)
    assert bench.num_reads < 60 * 20
    assert bench.edges_after(2.1) == []


def test_an_outage_is_one_fault_from_the_last_good_reading_to_the_next() -> None:
    bench = Bench().run(2.0)
    good = bench.read

    def lost() -> float:
        raise MeterError("GPU is lost")

    bench.read, bench.num_reads = lost, 0
    bench.run(30.0)
    num_failed = bench.num_reads
    bench.read = good
    bench.run(3.0)
    (fault,) = bench.sampler.log().faults
    assert fault.reason == "GPU is lost"
    assert 1.9 < (fault.earliest_ns - bench.begin_ns) * 1e-9 <= 2.0
    assert 32.0 <= (fault.latest_ns - bench.begin_ns) * 1e-9 < 32.6
    assert num_failed < 200
    assert len(bench.edges_after(32.6)) >= 20


@pytest.mark.parametrize("error", [ValueError("x"), OSError(13, "Permission denied"), ZeroDivisionError()])
def test_whatever_the_reading_raises_is_kept_and_the_step_goes_on(error: Exception) -> None:
    bench = Bench().run(1.0)

    def broken() -> float:
        raise error

    bench.read = broken
    assert 0 < bench.sampler.step() < 1
    assert type(error).__name__ in bench.sampler.log().faults[-1].reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_of_joules_is_a_fault(value: float) -> None:
    bench = Bench().run(1.0)
    bench.read = lambda: value
    bench.run(0.5)
    assert "something else than joules" in bench.sampler.log().faults[0].reason


def test_a_counter_that_appears_late_is_a_fault_until_then() -> None:
    bench = Bench()
    good, bench.read = bench.read, lambda: 1 / 0
    bench.run(2.0)
    bench.read = good
    bench.run(2.0)
    (fault,) = bench.sampler.log().faults
    assert fault.earliest_ns == bench.begin_ns
    assert len(bench.edges_after(2.5)) >= 13


def test_a_step_back_is_a_fault_with_both_values_and_counting_goes_on_after_it() -> None:
    bench = Bench(FakeGpu(reset_at_s=2.05)).run(4.0)
    (fault,) = bench.sampler.log().faults
    assert fault.reason == "the counter went backwards, from 5800 to 0 J"
    assert fault.earliest_ns <= bench.begin_ns + 2.05e9 <= fault.latest_ns
    after = bench.edges_after(2.2)
    assert len(after) >= 16
    for edge in after:
        assert edge.joules == bench.true_joules(edge.latest_ns)


def test_a_rise_that_no_gpu_can_make_is_a_fault() -> None:
    bench = Bench(max_w=1400.0).run(2.0)
    good = bench.read
    bench.read = lambda: good() + 500.0
    bench.run(2.0)
    (fault,) = bench.sampler.log().faults
    assert "rose by" in fault.reason
    assert "W" in fault.reason


def test_a_plausible_rise_is_none_even_after_a_late_update() -> None:
    bench = Bench(FakeGpu(power=700.0, jitter=0.5, lag_s=0.05), max_w=1400.0).run(30.0)
    assert bench.sampler.log().faults == ()


def test_an_update_that_comes_late_and_is_followed_closely_is_none() -> None:
    bench = Bench(FakeGpu(power=700.0, stuck_at_s=2.05, unstuck_at_s=2.199), max_w=1400.0).run(4.0)
    log = bench.sampler.log()
    assert log.faults == ()
    assert len([edge for edge in log.edges if edge.earliest_ns > bench.begin_ns + 2.1e9]) >= 17


def test_a_second_start_does_not_read_twice() -> None:
    bench = Bench().run(3.0)
    bench.sampler.start()
    bench.num_reads = 0
    bench.run(10.0)
    assert bench.num_reads / len(bench.edges_after(3.0)) < 6


def test_the_log_can_be_read_from_another_thread_at_any_time() -> None:
    sampler = EdgeSampler(iter(range(10**9)).__next__, name="a counter that always rises")
    done, errors = threading.Event(), list[BaseException]()

    def write() -> None:
        while not done.is_set():
            sampler.step()

    def read() -> None:
        try:
            for _ in range(3000):
                assert sampler.tick_s is None or sampler.tick_s > 0
            for _ in range(20):
                log = sampler.log()
                assert all(before.joules < after.joules for before, after in pairwise(log.edges[-1000:]))
                sampler.forget(log.read_until_ns)
        except BaseException as error:  # noqa: BLE001 -- it is raised below
            errors.append(error)
        done.set()

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_a_rise_after_a_pause_of_the_whole_process_is_none() -> None:
    bench = Bench(FakeGpu(power=700.0), max_w=1400.0).run(2.0)
    bench.clock.now_ns += 60_000_000_000
    bench.run(2.0)
    assert bench.sampler.log().faults == ()
    assert max(edge.width_ns for edge in bench.sampler.log().edges) > 59e9


def test_forgetting_keeps_what_a_later_window_needs() -> None:
    bench = Bench().run(5.0)
    now_ns = bench.clock()
    bench.sampler.forget(now_ns)
    log = bench.sampler.log()
    assert len(log.edges) == 2
    assert bench.begin_ns < log.begins_ns <= now_ns
    bench.run(2.0)
    assert len(bench.sampler.log().edges) >= 20


def test_an_outage_that_goes_on_is_not_forgotten() -> None:
    bench = Bench().run(1.0)
    bench.read = lambda: 1 / 0
    bench.run(3.0)
    bench.sampler.forget(bench.clock() + 1_000_000_000)
    assert len(bench.sampler.log().faults) == 1


def test_memory_is_bounded_and_what_was_dropped_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "MAX_EDGES", 50)
    bench = Bench().run(20.0)
    log = bench.sampler.log()
    assert len(log.edges) == 50
    assert log.begins_ns == log.edges[0].earliest_ns > bench.begin_ns + 14e9


def test_many_faults_become_wide_ones_rather_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "MAX_FAULTS", 5)
    bench = Bench().run(1.0)
    values = iter(range(10**6, 0, -1))
    bench.read = lambda: float(next(values))
    bench.run(5.0)
    log = bench.sampler.log()
    assert len(log.faults) == 5
    assert log.faults[-1].latest_ns > bench.begin_ns + 5.8e9
    for earlier, later in zip(log.faults, log.faults[1:], strict=False):
        assert later.earliest_ns <= earlier.latest_ns  # no gap between them


@pytest.mark.parametrize(("tick_s", "jitter"), [(0.1, 0.0), (0.02, 0.2), (0.001, 0.0)])
def test_a_probe_finds_the_tick_its_jitter_and_the_smallest_increment(tick_s: float, jitter: float) -> None:
    bench = Bench(FakeGpu(power=400.0, tick_s=tick_s, jitter=jitter))
    probe = bench.sampler.probe()
    assert probe.num_edges == 20
    assert probe.tick_s == pytest.approx(tick_s, rel=0.1 if jitter else 0.05)
    # gaps differ by two moments, each uniform within the jitter
    assert probe.jitter_s == pytest.approx(jitter * tick_s / math.sqrt(6), rel=0.5, abs=0.02 * tick_s + 3e-5)
    assert probe.smallest_j == pytest.approx(400 * tick_s, rel=jitter, abs=0.001)
    assert bench.now_s < 22 * tick_s + 0.01


def test_a_probe_of_a_slow_counter_ends_in_time() -> None:
    bench = Bench(FakeGpu(tick_s=1.0))
    assert bench.sampler.probe(20, limit_s=5.0).num_edges in (4, 5)
    assert bench.now_s < 5.2


def test_a_probe_says_how_long_a_reading_takes() -> None:
    bench = Bench()
    good = bench.read

    def slow() -> float:
        bench.clock.sleep(0.003)
        return good()

    bench.read = slow
    assert bench.sampler.probe().read_s == pytest.approx(0.003)


@pytest.mark.parametrize("gpu", [FakeGpu(stuck_at_s=0.0), FakeGpu(tick_s=3.0)])
def test_a_probe_of_a_stuck_counter_fails_in_time(gpu: FakeGpu) -> None:
    bench = Bench(gpu)
    with pytest.raises(MeterError, match=r"the counter is stuck .got [012] increments in 5 s"):
        bench.sampler.probe()
    assert bench.now_s < 5.2


def test_a_probe_of_an_unreadable_counter_fails_after_a_second_try_with_its_reason() -> None:
    bench = Bench()

    def lost() -> float:
        raise MeterError("GPU is lost")

    bench.read = lost
    with pytest.raises(MeterError, match="GPU is lost"):
        bench.sampler.probe()
    assert bench.num_reads == 2


def test_a_closed_sampler_reads_no_more() -> None:
    bench = Bench().run(1.0)
    bench.sampler.close()
    assert not bench.sampler.is_running
    num_reads = bench.num_reads
    bench.clock.advance(5.0)
    assert bench.num_reads == num_reads
    bench.sampler.close()


def test_a_real_thread_calls_the_step_until_it_is_ended() -> None:
    many, names = threading.Event(), list[str]()

    def step() -> float:
        names.append(threading.current_thread().name)
        if len(names) >= 10:
            many.set()
        return 0.0

    end = in_thread(step)
    assert many.wait(30)
    end()
    num_steps = len(names)
    assert set(names) == {"compressbench-edges"}
    assert "compressbench-edges" not in [thread.name for thread in threading.enumerate()]
    assert len(names) == num_steps


def failing_in(readings: set[int]) -> Bench:
    bench = Bench(FakeGpu(power=400.0))
    good = bench.read

    def read() -> float:
        if bench.num_reads - 1 in readings:
            raise OSError("busy")
        return good()

    bench.read = read
    return bench


@pytest.mark.parametrize("failing", [{0}, {1}, {40}])
def test_a_probe_survives_a_lone_reading_that_failed(failing: set[int]) -> None:
    bench = failing_in(failing)
    assert bench.sampler.probe().tick_s == pytest.approx(0.1, rel=0.05)
    assert bench.sampler.log().faults == ()


@pytest.mark.parametrize("failing", [{40, 41}, {40, 60}])
def test_a_probe_survives_no_second_failure(failing: set[int]) -> None:
    bench = failing_in(failing)
    with pytest.raises(MeterError, match=r"the counter can't be used \(got OSError: busy\)"):
        bench.sampler.probe()


def test_a_probe_does_not_try_a_counter_again_that_went_back() -> None:
    bench = Bench(FakeGpu(reset_at_s=0.55))
    with pytest.raises(MeterError, match=r"the counter can't be used .*went backwards"):
        bench.sampler.probe()
