from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Window
from compressbench.meters import edges as edges_module
from compressbench.meters.edge_energy import energy_window, min_window_s
from compressbench.meters.edge_windows import EdgeWindows
from compressbench.meters.edges import EdgeLog, EdgeSampler, Fault
from compressbench.meters.marks import Marks
from compressbench.meters.probe import Edge
from compressbench.testing.event_clock import EventClock
from compressbench.testing.nvml_device import FakeGpu, Power

MS = 1_000_000


def log_of(
    joules: Callable[[float], float], ticks_ms: list[float], *, width_ms: float = 0.0, faults: tuple[Fault, ...] = ()
) -> EdgeLog:
    """Edges at these moments, of a counter that then has `joules` of the seconds so far."""
    half = round(width_ms * MS / 2)
    found = [Edge(round(ms * MS) - half, round(ms * MS) + half, joules(ms / 1e3)) for ms in ticks_ms]
    return EdgeLog(tuple(found), faults, 0, 10**12, 0.1, 0.001, "the counter")


def regular(count: int = 60) -> list[float]:
    return [37.0 + 100 * number for number in range(count)]


def joules_of(window: Window) -> tuple[float, float]:
    assert not window.reason, window.reason
    return window.values["energy_j"], window.uncertainties["energy_j"]


def simulate(gpu: FakeGpu, offset_s: float, length_s: float, late_s: Callable[[], float] = lambda: 0.0) -> Simulated:
    clock = EventClock()
    begin_ns = clock()
    timing = clock.timing._replace(background=lambda step: clock.attach(lambda: step() + late_s()))
    sampler = EdgeSampler(
        lambda: gpu.counter_mj((clock() - begin_ns) * 1e-9) * 1e-3,
        name="the counter",
        resolution_j=0.001,
        timing=timing,
    )
    sampler.probe()
    sampler.start()
    windows = EdgeWindows(sampler)
    clock.advance(offset_s)
    windows.start()
    from_s = (clock() - begin_ns) * 1e-9
    clock.advance(length_s)
    windows.stop()
    until_s = (clock() - begin_ns) * 1e-9
    clock.advance(gpu.tick_s)
    (window,) = windows.collect()
    return Simulated(window, gpu.curve.joules(until_s) - gpu.curve.joules(from_s))


class Simulated:
    def __init__(self, window: Window, truth: float) -> None:
        self.window, self.truth = window, truth

    @property
    def relative_error(self) -> float:
        return abs(joules_of(self.window)[0] / self.truth - 1)

    @property
    def is_covered(self) -> bool:
        value, uncertainty = joules_of(self.window)
        return abs(value - self.truth) <= 1.96 * uncertainty


# the estimate, against closed forms


@pytest.mark.parametrize(("begin_ms", "end_ms"), [(137, 1137), (101, 1099), (0, 5936.9), (190, 437.1)])
def test_constant_power_is_exact_but_for_rounding(begin_ms: float, end_ms: float) -> None:
    log = log_of(lambda second: 400 * second, regular())
    joules, uncertainty = joules_of(energy_window(log, round(begin_ms * MS), round(end_ms * MS)))
    assert joules == pytest.approx(0.4 * (end_ms - begin_ms), rel=1e-9)
    num_inside = math.floor((end_ms - 37) / 100) - math.ceil((begin_ms - 37) / 100)
    scale = (end_ms - begin_ms) / (100 * num_inside)
    assert uncertainty == pytest.approx(scale * 0.001 / math.sqrt(6), rel=1e-6)


def test_the_ends_are_charged_at_the_mean_power_if_power_is_noise() -> None:
    watts = [400.0 + (17 * number % 7) * 10 for number in range(60)]
    steps: Power = [(number * 0.1 + 0.037 - 0.1, watts[number]) for number in range(60)]
    curve = FakeGpu(power=steps).curve
    log = log_of(curve.joules, regular())
    joules, _ = joules_of(energy_window(log, 250 * MS, 4_590 * MS))
    inside = watts[4:46]
    covered = sum(inside) * 0.1
    assert joules == pytest.approx(covered + sum(inside) / len(inside) * (0.087 + 0.053), rel=1e-9)


def test_the_ends_of_drifting_power_are_charged_at_what_is_near() -> None:
    def joules_until(second: float) -> float:
        return 300 * second + 25 * second**2

    log = log_of(joules_until, regular())
    for begin_s, end_s in ((0.047, 5.030), (0.047, 4.940), (0.130, 5.030)):
        value, uncertainty = joules_of(energy_window(log, round(begin_s * 1e9), round(end_s * 1e9)))
        truth = joules_until(end_s) - joules_until(begin_s)
        # power falls by 5 W from tick to tick: an end of 0.09 s is charged 5 to 8 W off, not by the 120 W of the mean
        assert abs(value - truth) < 0.09 * 8 * 2
        assert abs(value - truth) <= 1.96 * uncertainty


def test_the_uncertainty_of_edge_timing_is_that_of_two_uniform_moments() -> None:
    log = log_of(lambda second: 400 * second, regular(), width_ms=2.0)
    _, uncertainty = joules_of(energy_window(log, 100 * MS, 2_100 * MS))
    timing = 400 * math.hypot(0.002, 0.002) / math.sqrt(12) * 2.0 / 1.9
    assert uncertainty == pytest.approx(math.hypot(timing, 0.001 / math.sqrt(6)), rel=0.01)


def test_edges_that_were_slept_over_do_not_bound_the_energy() -> None:
    exact = log_of(lambda second: 400 * second, regular(), width_ms=1.0)
    vague = [
        edge._replace(earliest_ns=edge.earliest_ns - 60 * MS) if n in (3, 20) else edge
        for n, edge in enumerate(exact.edges)
    ]
    value, uncertainty = joules_of(energy_window(exact._replace(edges=tuple(vague)), 250 * MS, 2_050 * MS))
    assert value == pytest.approx(720, rel=1e-6)
    assert uncertainty < 0.3


@pytest.mark.parametrize(("begin_ms", "end_ms"), [(30, 250), (10, 270), (37, 237)])
def test_the_uncertainty_of_the_ends_from_two_segments_is_their_difference_by_student(
    begin_ms: int, end_ms: int
) -> None:
    log = log_of(FakeGpu(power=[(0.0, 400.0), (0.137, 430.0)]).curve.joules, [37.0, 137.0, 237.0])
    _, uncertainty = joules_of(energy_window(log, begin_ms * MS, end_ms * MS))
    head_s, tail_s = 0.037 - begin_ms / 1e3, end_ms / 1e3 - 0.237
    ends_j = 30 * 12.7062 / 1.96 * math.sqrt(0.1 * head_s + 0.1 * tail_s + 0.1**2)
    assert uncertainty == pytest.approx(ends_j, rel=1e-4)


def test_of_few_segments_the_nearest_predict_a_rise_and_the_worse_prediction_is_stated() -> None:
    power = [(0.0, 400.0), (0.137, 430.0), (0.237, 460.0), (0.337, 490.0)]
    log = log_of(FakeGpu(power=power).curve.joules, [37.0, 137.0, 237.0, 337.0, 437.0])
    value, uncertainty = joules_of(energy_window(log, 7 * MS, 487 * MS))
    # forgetting: 400, then 418 for 460, then 443.2 for 490, then 471.28 for the tail; downwards likewise for the head
    assert value == pytest.approx(178.0 + 471.28 * 0.05 + (400 + 490 - 471.28) * 0.03, abs=1e-6)
    # means: 415 for 460, 430 for 490, and the same downwards
    error_w = math.sqrt((45**2 + 60**2) / 2) * 3.18245 / 1.96
    assert uncertainty == pytest.approx(error_w * math.sqrt(0.1 * 0.03 + 0.1 * 0.05 + 0.1**2), rel=1e-4)


def test_an_end_longer_than_a_segment_is_as_uncertain_as_if_power_kept_its_distance() -> None:
    log = log_of(FakeGpu(power=[(0.0, 400.0), (0.337, 430.0)]).curve.joules, [237.0, 337.0, 437.0])
    _, uncertainty = joules_of(energy_window(log, 17 * MS, 437 * MS))
    assert uncertainty == pytest.approx(30 * 12.7062 / 1.96 * math.sqrt(0.22**2 + 0.1**2), rel=1e-4)


def test_the_seconds_are_those_of_the_marks() -> None:
    window = energy_window(log_of(lambda second: second, regular()), 250 * MS, 2_050 * MS)
    assert window.seconds == pytest.approx(1.8)


# what must not become a number


@pytest.mark.parametrize("length_ms", [35, 150, 290])
def test_a_window_with_fewer_than_three_edges_is_below_resolution(length_ms: int) -> None:
    window = energy_window(log_of(lambda second: 400 * second, regular()), 140 * MS, (140 + length_ms) * MS)
    assert not window.values
    assert window.reason.startswith("below resolution: the counter moved ")
    assert "measure 1 s or longer" in window.reason


def test_a_window_that_a_fault_touches_has_its_reason() -> None:
    fault = Fault(1_000 * MS, 1_100 * MS, "GPU is lost")
    log = log_of(lambda second: 400 * second, regular(), faults=(fault,))
    for begin_ms, end_ms, is_void in (
        (300, 999, False),
        (300, 1_050, True),
        (1_050, 2_000, True),
        (1_101, 2_000, False),
    ):
        window = energy_window(log, begin_ms * MS, end_ms * MS)
        assert (window.reason == "GPU is lost") is is_void


def test_a_window_before_the_log_or_after_the_last_reading_is_void() -> None:
    log = log_of(lambda second: 400 * second, regular())._replace(begins_ns=500 * MS, read_until_ns=3_000 * MS)
    assert "collect more often" in energy_window(log, 499 * MS, 2_000 * MS).reason
    assert "was not read in the last 0.5 s" in energy_window(log, 600 * MS, 3_500 * MS).reason
    assert energy_window(log, 600 * MS, 3_000 * MS).values


def test_a_counter_without_any_edge_in_a_long_window_is_stuck() -> None:
    log = log_of(lambda second: 400 * second, regular(10))
    assert energy_window(log, 2_000 * MS, 4_000 * MS).reason == (
        "the counter is stuck: 0 increments in 2 s, with a tick of 100 ms"
    )


@pytest.mark.parametrize(("begin_ms", "end_ms"), [(300, 2_500), (1_550, 4_500), (300, 4_500)])
def test_a_counter_that_stands_still_at_either_end_is_stuck(begin_ms: int, end_ms: int) -> None:
    still = range(1_600, 3_000)
    ticks = [tick for tick in regular() if tick not in still]
    ticks = [tick for tick in ticks if not 1_500 < tick < 3_000]
    log = log_of(lambda second: 400 * (min(second, 1.5) + max(0.0, second - 2.9)), ticks)
    assert "stood still for " in energy_window(log, begin_ms * MS, end_ms * MS).reason


def test_a_late_increment_that_brings_all_its_energy_is_no_standstill() -> None:
    ticks = [tick for tick in regular() if not 1_500 < tick < 2_500]
    value, _ = joules_of(energy_window(log_of(lambda second: 400 * second, ticks), 300 * MS, 4_500 * MS))
    assert value == pytest.approx(1680, rel=1e-9)


@pytest.mark.parametrize("still_ms", [220, 300, 400])
@pytest.mark.parametrize("length_ms", [2_000, 10_000])
def test_a_short_standstill_that_loses_its_energy_voids_the_window(still_ms: int, length_ms: int) -> None:
    """Over 2 ticks; of 2 and less it can't be told from an increment that came late."""
    ticks = [tick for tick in regular(120) if not 1_501 < tick < 1_501 + still_ms]
    log = log_of(lambda second: 400 * (min(second, 1.5) + max(0.0, second - 1.5 - still_ms / 1e3)), ticks)
    reason = energy_window(log, 300 * MS, (300 + length_ms) * MS).reason
    assert re.search(r"stood still for 0\.[345] s of the window, with a tick of 100 ms", reason)


@pytest.mark.parametrize("gone", [{20, 21}, {10, 11, 12}, {14, 15}])
def test_increments_that_nobody_saw_where_the_power_changes_are_no_standstill(gone: set[int]) -> None:
    ticks = [tick for number, tick in enumerate(regular()) if number not in gone]
    log = log_of(lambda second: 400 * second if second < 1.4 else 560 + 60 * (second - 1.4), ticks)
    value, _ = joules_of(energy_window(log, 300 * MS, 4_500 * MS))
    assert value == pytest.approx(440 + 60 * 3.1, rel=0.01)


# the whole of it, in simulated time


@pytest.mark.parametrize(
    ("length_s", "tick_s", "most"), [(0.5, 0.1, 0.01), (0.5, 0.02, 0.01), (2.0, 0.1, 0.002), (2.0, 0.02, 0.002)]
)
def test_at_constant_power_the_error_is_at_most_1_percent_from_half_a_second_and_02_from_two(
    length_s: float, tick_s: float, most: float
) -> None:
    randomly = random.Random(4)
    for seed in range(12):
        gpu = FakeGpu(power=400.0, tick_s=tick_s, phase_s=randomly.uniform(0, tick_s), seed=seed)
        found = simulate(gpu, randomly.uniform(0.2, 0.5), length_s)
        assert found.relative_error <= most
        assert found.is_covered


def test_what_the_gpu_does_before_and_after_the_window_does_not_enter() -> None:
    def energy(outside_w: float) -> tuple[float, float]:
        power: Power = [(0.0, outside_w), (2.6, 400.0), (3.4, 440.0), (4.2, outside_w)]
        gpu = FakeGpu(power=power, tick_s=0.1, jitter=0.3, seed=9)
        # the probe of 20 ticks ends near 2.05 s
        clock_offset = 2.6 - probe_end_s(gpu)
        return joules_of(simulate(gpu, clock_offset, 1.6).window)

    quiet, loud = energy(50.0), energy(700.0)
    assert quiet[0] == pytest.approx(loud[0], abs=0.005)
    assert quiet[1] == pytest.approx(loud[1], abs=0.005)
    assert quiet[0] == pytest.approx(400 * 0.8 + 440 * 0.8, rel=0.01)


def probe_end_s(gpu: FakeGpu) -> float:
    clock = EventClock()
    begin_ns = clock()
    EdgeSampler(lambda: gpu.counter_mj((clock() - begin_ns) * 1e-9) * 1e-3, name="c", timing=clock.timing).probe()
    return (clock() - begin_ns) * 1e-9


def random_power(randomly: random.Random, until_s: float) -> Power:
    kind = randomly.choice(["levels", "wandering", "wave", "calls", "constant"])
    level = randomly.uniform(150, 600)
    if kind == "constant":
        return level
    if kind == "wave":
        height, hertz = level * randomly.uniform(0.02, 0.3), randomly.uniform(0.1, 3)
        return lambda second: level + height * math.sin(2 * math.pi * hertz * second)
    hold_s = {
        "levels": math.exp(randomly.uniform(-3, 1)),
        "wandering": 0.01,
        "calls": math.exp(randomly.uniform(-6, -3)),
    }
    steps, second, is_busy = [(0.0, level)], 0.0, False
    while second < until_s:
        second += hold_s[kind] * (randomly.expovariate(1.0) + 1e-3 if kind == "levels" else 1.0)
        is_busy = not is_busy
        watts = steps[-1][1] + randomly.gauss(0, 8) if kind == "wandering" else randomly.uniform(100, 700)
        steps.append((second, max(30.0, (1.3 if is_busy else 0.7) * level if kind == "calls" else watts)))
    return steps


def test_the_stated_interval_holds_the_truth_in_95_percent_of_random_cases() -> None:
    randomly = random.Random(12)
    found = []
    for seed in range(100):
        tick_s, length_s = math.exp(randomly.uniform(-4.0, -2.3)), math.exp(randomly.uniform(-1.1, 0.8))
        gpu = FakeGpu(
            power=random_power(randomly, 40 * tick_s + length_s + 2),
            tick_s=tick_s,
            jitter=randomly.uniform(0, 0.4),
            lag_s=tick_s * randomly.choice([0.0, 0.2]),
            phase_s=randomly.uniform(0, tick_s),
            seed=seed,
        )
        late_rate = 1 / randomly.choice([1e-6, 5e-4, 3e-3])
        late_s = partial(randomly.expovariate, late_rate)
        found.append(simulate(gpu, randomly.uniform(0.2, 0.5), length_s, late_s))
    with_value = [one for one in found if one.window.values]
    assert len(with_value) >= 95
    assert sum(one.is_covered for one in with_value) >= 0.95 * len(with_value)
    # and it isn't bought by saying nothing
    said = sorted(joules_of(one.window)[1] / one.truth for one in with_value)
    assert said[len(said) // 2] < 0.016


# marks and collecting


def sampled(gpu: FakeGpu) -> tuple[EventClock, EdgeSampler, EdgeWindows]:
    clock = EventClock()
    begin_ns = clock()
    sampler = EdgeSampler(
        lambda: gpu.counter_mj((clock() - begin_ns) * 1e-9) * 1e-3, name="the counter", timing=clock.timing
    )
    sampler.probe()
    sampler.start()
    return clock, sampler, EdgeWindows(sampler)


def test_windows_are_collected_once_and_in_their_order() -> None:
    clock, _, windows = sampled(FakeGpu())
    for seconds in (1.0, 2.0, 1.5):
        windows.start()
        clock.advance(seconds)
        windows.stop()
    assert [round(window.seconds, 3) for window in windows.collect()] == [1.0, 2.0, 1.5]
    assert windows.collect() == []


def test_collecting_waits_until_the_counter_has_been_read_after_the_end() -> None:
    clock, sampler, windows = sampled(FakeGpu())
    clock.advance(0.55)
    windows.start()
    clock.advance(1.0)
    windows.stop()
    end_ns = clock()
    assert sampler.read_until_ns < end_ns
    assert joules_of(windows.collect()[0])[0] == pytest.approx(400, rel=0.01)
    assert end_ns < clock() < end_ns + 200 * MS


def test_the_series_leaves_out_edges_that_were_slept_over() -> None:
    log = log_of(lambda second: 400 * second, regular(), width_ms=1.0)
    vague = log.edges[20]._replace(earliest_ns=log.edges[19].latest_ns)
    slept = log._replace(edges=(*log.edges[:20], vague, *log.edges[21:]))
    sampler: Any = SimpleNamespace(log=lambda: slept, timing=EventClock().timing)
    found = EdgeWindows(sampler).series(0, 10**12)
    assert found == [(round(edge.at_ns), edge.joules) for edge in log.edges if edge.joules != vague.joules]


def test_collecting_from_a_sampler_that_reads_no_more_ends_and_says_so() -> None:
    clock, sampler, windows = sampled(FakeGpu())
    windows.start()
    clock.advance(1.0)
    windows.stop()
    sampler.close()
    (window,) = windows.collect()
    assert "was not read in the last" in window.reason


def test_collecting_forgets_but_a_window_that_is_open_stays_whole() -> None:
    clock, sampler, windows = sampled(FakeGpu())
    clock.advance(5.0)
    windows.start()
    clock.advance(1.0)
    assert windows.collect() == []
    assert len(sampler.log().edges) < 15
    clock.advance(1.0)
    windows.stop()
    assert joules_of(windows.collect()[0])[0] == pytest.approx(800, rel=0.005)


def test_a_log_that_has_overflown_voids_the_window_and_not_its_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges_module, "MAX_EDGES", 40)
    clock, _, windows = sampled(FakeGpu())
    for seconds in (5.0, 2.0):
        windows.start()
        clock.advance(seconds)
        windows.stop()
    lost, kept = windows.collect()
    assert "collect more often" in lost.reason
    assert joules_of(kept)[0] == pytest.approx(800, rel=0.002)


def test_marks_are_two_readings_of_the_clock() -> None:
    moments = iter([5, 9, 20, 21])
    marks = Marks(lambda: next(moments))
    marks.start()
    marks.stop()
    marks.start()
    marks.stop()
    assert [(mark.begin_ns, mark.end_ns) for mark in marks.take()] == [(5, 9), (20, 21)]
    assert marks.take() == []


def test_windows_do_not_overlap() -> None:
    marks = Marks(iter(range(100)).__next__)
    with pytest.raises(MeterError, match="stopped before it was started"):
        marks.stop()
    marks.start()
    with pytest.raises(MeterError, match="started twice"):
        marks.start()


def test_a_closed_meter_cannot_be_started() -> None:
    _, sampler, windows = sampled(FakeGpu())
    sampler.close()
    with pytest.raises(MeterError, match="has been closed"):
        windows.start()


@pytest.mark.parametrize(("tick_s", "seconds"), [(0.001, 0.5), (0.05, 0.5), (0.1, 1.0), (1.0, 10.0)])
def test_the_shortest_window_is_ten_ticks_and_half_a_second(tick_s: float, seconds: float) -> None:
    assert min_window_s(tick_s) == pytest.approx(seconds)
