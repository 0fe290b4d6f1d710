from __future__ import annotations

import math
import os
import random
import re
import time
from itertools import pairwise
from typing import Any

import pynvml
import pytest
from nvml_bench import GpuBench

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument, Meter, Window
from compressbench.meters import energy_nvml_power
from compressbench.meters.energy_nvml_power import EnergyNvmlPower, NvmlPower
from compressbench.testing.event_clock import EventClock
from compressbench.testing.nvml import FakeGpu, FakeNvml

NO_FIELD = frozenset({"NVML_FI_DEV_POWER_INSTANT"})


def wavy(second: float) -> float:
    return 400 + 60 * math.sin(7.3 * second) + 25 * math.sin(41.7 * second)


class Bench(GpuBench[NvmlPower]):
    """NVML's power. Opening takes 3 s of simulated time at most."""

    def __init__(self, gpu: FakeGpu | None = None) -> None:
        super().__init__(gpu or FakeGpu(power=wavy))

    def made(self) -> NvmlPower:
        return NvmlPower(self.device, nvml=self.nvml, timing=self.clock.timing)


def unsteady(steps: list[tuple[float, float]], randomly: random.Random) -> list[tuple[float, float]]:
    """The same power, which isn't the same to the milliwatt any more for more than 20 ms: no real one is."""
    found = []
    for (since_s, watts), (until_s, _) in pairwise([*steps, (steps[-1][0] + 1.0, 0.0)]):
        count = max(1, math.ceil((until_s - since_s) / 0.02))
        moments = [since_s + (until_s - since_s) * number / count for number in range(count)]
        found += [(moment_s, watts + randomly.gauss(0.0, 0.2)) for moment_s in moments]
    return found


class Faulty(FakeGpu):
    """From `frozen_at_s` on it shows the power of that moment; from `slow_at_s` on it updates ten times more rarely."""

    frozen_at_s = math.inf

    def _power_mw(self, now_s: float, span_s: float) -> int:
        shown_s = min(now_s, self.frozen_at_s)
        if shown_s > self.slow_at_s:
            tick_s = self.slow_factor * self.power_tick_s
            shown_s = self.slow_at_s + math.floor((shown_s - self.slow_at_s) / tick_s) * tick_s
        return super()._power_mw(shown_s, span_s)


def is_within(window: Window, truth: float) -> bool:
    return abs(window.values["energy_j"] - truth) <= 1.96 * window.uncertainties["energy_j"]


@pytest.mark.parametrize(("gpu", "word", "min_window_s"), [
    (FakeGpu(power=wavy), "NVML_FI_DEV_POWER_INSTANT, momentary", 2.0),
    (FakeGpu(power=wavy, unsupported=NO_FIELD), "nvmlDeviceGetPowerUsage, the mean of the last second", 5.5),
    (FakeGpu(power=wavy, unsupported=NO_FIELD, architecture=6), "nvmlDeviceGetPowerUsage, momentary", 2.0),
    (FakeGpu(power=wavy, unsupported=NO_FIELD | {"nvmlDeviceGetArchitecture"}), "the mean of the last second", 5.5),
])  # fmt: skip
def test_it_says_which_power_it_reads_and_how_long_windows_must_be(
    gpu: FakeGpu, word: str, min_window_s: float
) -> None:
    meter: Instrument = Bench(gpu).open().meter
    how = meter.provenances["energy_j"]
    assert word in how.source
    assert how.kind == "measured"
    assert how.boundary == "device"
    assert how.relative_uncertainty == 0.05
    assert any("2312.02741" in note for note in how.notes)
    assert meter.min_window_s == pytest.approx(min_window_s, rel=0.01)


@pytest.mark.parametrize("tick_s", [0.02, 0.1])
def test_the_update_tick_is_found(tick_s: float) -> None:
    bench = Bench(FakeGpu(power=wavy, power_tick_s=tick_s)).open()
    assert bench.meter.tick_s == pytest.approx(tick_s, rel=0.05)
    assert bench.nvml.now_s < 3.1


def test_power_that_never_changes_has_an_assumed_tick_and_says_so() -> None:
    bench = Bench(FakeGpu(power=400.0)).open()
    how = bench.meter.provenances["energy_j"]
    assert how.tick_s == 0.1
    assert "its tick is assumed: the power didn't change within 3 s" in how.notes[0]
    (window,) = bench.window(3.0).collect()
    assert window.values["energy_j"] == pytest.approx(1200.0, rel=1e-9)


@pytest.mark.parametrize("unsupported", [frozenset[str](), NO_FIELD])
def test_joules_are_the_integral_of_power(unsupported: frozenset[str]) -> None:
    bench = Bench(FakeGpu(power=wavy, unsupported=unsupported)).open().window(6.0, 10.0, 30.0)
    for window, truth, most in zip(bench.collect(), bench.truths, (0.03, 0.02, 0.01), strict=True):
        assert window.values["energy_j"] == pytest.approx(truth, rel=most)
        assert is_within(window, truth)


@pytest.mark.parametrize("unsupported", [frozenset[str](), NO_FIELD])
def test_what_the_gpu_does_before_and_after_the_window_does_not_count(unsupported: frozenset[str]) -> None:
    def power(second: float) -> float:
        return (400 if 5.0 < second < 11.0 else 60) + math.sin(40 * second)

    bench = Bench(FakeGpu(power=power, unsupported=unsupported)).open().until(5.0).window(6.0)
    bench.clock.advance(3.0)
    (window,) = bench.collect()
    assert window.values["energy_j"] == pytest.approx(2400.0, rel=1e-3)


def test_windows_that_one_average_fills_are_below_resolution() -> None:
    first, second = Bench(FakeGpu(power=wavy, unsupported=NO_FIELD)).open().window(1.0, 4.0).collect()
    for window in (first, second):
        assert window.reason.startswith("below resolution")
        assert window.reason.endswith("measure 5.5 s or longer")


def test_the_stated_interval_holds_the_truth_in_95_percent_of_random_cases() -> None:
    randomly, num_held, num_cases = random.Random(6), 0, 40
    for seed in range(num_cases):
        steps, second = [(0.0, 300.0)], 0.0
        hold_s = math.exp(randomly.uniform(-4, 1))
        while second < 20:
            second += randomly.expovariate(1 / hold_s) + 1e-3
            steps.append((second, randomly.uniform(100, 700)))
        steps = unsteady(steps, randomly)
        gpu = FakeGpu(power=steps, seed=seed, power_tick_s=randomly.choice([0.02, 0.1]))
        gpu.unsupported = randomly.choice([frozenset[str](), NO_FIELD])
        bench = Bench(gpu).open().until(3.2 + randomly.random()).window(randomly.uniform(6, 14))
        (window,) = bench.collect()
        num_held += is_within(window, bench.truths[0])
    assert num_held >= 0.95 * num_cases


def test_marking_a_window_reads_nothing() -> None:
    bench = Bench().open()
    before = bench.nvml.num_reads
    for _ in range(100):
        bench.meter.start()
        bench.meter.stop()
    assert bench.nvml.num_reads == before


# faults


def test_a_lost_gpu_voids_the_windows_it_touches_and_no_others() -> None:
    gpu = FakeGpu(power=wavy, lost_at_s=8.0, back_at_s=10.0)
    bench = Bench(gpu).open().until(4.0).window(3.5, 2.0, 1.0).until(11.0).window(8.0)
    before, touched, within, after = bench.collect()
    for window in (touched, within):
        assert not window.values
        assert "GPU is lost" in window.reason
    assert is_within(before, bench.truths[0])
    assert is_within(after, bench.truths[3])


def test_power_that_stands_still_after_it_moved_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(FakeGpu(power=wavy, unsupported=NO_FIELD)).open()
    monkeypatch.setattr(bench.nvml, "nvmlDeviceGetPowerUsage", lambda handle: 123_456)
    (window,) = bench.window(8.0).collect()
    assert window.reason == "the NVML power is stuck: 123.456 W throughout the window"


@pytest.mark.parametrize("frozen_s", [0.0, 0.2, 2.0, 5.0, 8.0])
def test_power_that_freezes_in_a_window_voids_it(frozen_s: float) -> None:
    gpu = Faulty(power=lambda second: wavy(second) - (300 if second < 12.5 else 0), unsupported=NO_FIELD)
    bench = Bench(gpu).open().until(10.0)
    gpu.frozen_at_s = 10.0 + frozen_s
    (window,) = bench.window(10.0).collect()
    assert re.match(r"the NVML power (stood still for .* with a tick of|is stuck: )", window.reason)


def test_power_that_was_frozen_for_a_while_is_read_again() -> None:
    gpu = Faulty(power=wavy)
    bench = Bench(gpu).open().until(4.0)
    gpu.frozen_at_s = 5.0
    bench.window(6.0)
    gpu.frozen_at_s = math.inf
    frozen, after = bench.window(6.0).collect()
    assert frozen.reason == "the NVML power stood still for 4.95 s of the window, with a tick of 100 ms"
    assert is_within(after, bench.truths[1])


def test_a_tick_that_gets_ten_times_slower_asks_for_longer_windows_and_holds_the_truth_in_those() -> None:
    num_held, num_cases = 0, 40
    for seed in range(num_cases):
        randomly = random.Random(seed)
        table = [randomly.uniform(-150, 150) for _ in range(2000)]
        gpu = Faulty(power=lambda second: 300 + table[int(second * 20)], slow_at_s=5.0)  # noqa: B023 -- used at once
        bench = Bench(gpu).open().until(6.0 + randomly.random())
        short, long = bench.window(5.0 + randomly.random(), 20.0 + 10 * randomly.random()).collect()
        assert re.match(r"below resolution: .* s; measure (9|10)", short.reason)
        num_held += is_within(long, bench.truths[1])
    assert num_held >= 0.95 * num_cases


def test_no_permission_is_an_error_in_nvmls_words(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(FakeGpu(power=wavy, unsupported=NO_FIELD))

    def denied(_: Any) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)

    monkeypatch.setattr(bench.nvml, "nvmlDeviceGetPowerUsage", denied)
    with pytest.raises(MeterError, match=r"nvmlDeviceGetPowerUsage .got Insufficient Permissions"):
        bench.open()
    assert bench.nvml.num_inits == 0


def test_a_suspended_machine_gives_no_number() -> None:
    bench = Bench(FakeGpu(power=lambda second: 0.0 if 6.0 < second < 66.0 else wavy(second))).open().until(4.0)
    bench.meter.start()
    bench.clock.advance(2.0)
    bench.clock.now_ns += 60 * 10**9  # nothing ran, no thread either
    bench.clock.advance(2.0)
    bench.meter.stop()
    (window,) = bench.collect()
    assert window.reason.startswith("the NVML power was not read for 60")


def test_sharing_the_gpu_is_noted() -> None:
    notes = Bench(FakeGpu(power=wavy, processes=[os.getpid(), 1, 2])).open().meter.provenances["energy_j"].notes
    assert any(note.startswith("shared device: 2 other processes compute on this GPU") for note in notes)
    alone = Bench().open().meter.provenances["energy_j"].notes
    assert not any("shared" in note for note in alone)


def test_no_watts_are_no_number() -> None:
    (window,) = Bench(FakeGpu(power=0.0)).open().window(8.0).collect()
    assert window.reason == "NVML reports 0 W, which is not a power of a GPU that is on"


@pytest.mark.parametrize("garbage", ["12", 1.5, -1, None])
def test_garbage_is_no_number(garbage: object, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(FakeGpu(power=wavy, unsupported=NO_FIELD)).open()
    monkeypatch.setattr(bench.nvml, "nvmlDeviceGetPowerUsage", lambda handle: garbage)
    (window,) = bench.window(8.0).collect()
    assert f"something else than milliwatts (got {garbage!r})" in window.reason


def test_a_thread_that_did_not_run_leaves_a_gap_and_no_number() -> None:
    bench = Bench().open()
    bench.meter.start()
    bench.clock.advance(3.0)
    bench.clock.now_ns += 4 * 10**9
    bench.clock.advance(3.0)
    bench.meter.stop()
    (window,) = bench.collect()
    assert window.reason.startswith("the NVML power was not read for 4")


def test_a_log_that_has_overflown_voids_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_nvml_power, "MAX_SAMPLES", 200)
    first, last = Bench().open().window(20.0, 5.0).collect()
    assert "collect more often" in first.reason
    assert last.values


def test_collecting_forgets_but_a_window_that_is_open_stays_whole() -> None:
    bench = Bench().open()
    bench.clock.advance(10.0)
    bench.meter.start()
    bench.clock.advance(2.0)
    assert bench.collect() == []
    assert len(bench.meter._samples) < 60
    begin_ns = bench.clock() - 2 * 10**9
    bench.clock.advance(2.0)
    bench.meter.stop()
    (window,) = bench.collect()
    assert is_within(window, bench.nvml.joules_between(begin_ns, bench.clock()))


@pytest.mark.parametrize(("gpu", "word"), [
    (FakeGpu(lost_at_s=0.0), "GPU is lost"),
    (FakeGpu(unsupported=NO_FIELD | {"nvmlDeviceGetPowerUsage"}), "nvmlDeviceGetPowerUsage .got Not Supported"),
    (FakeGpu(is_mig=True), "MIG"),
])  # fmt: skip
def test_what_cannot_be_measured_is_not_opened(gpu: FakeGpu, word: str) -> None:
    bench = Bench(gpu)
    with pytest.raises(MeterError, match=word):
        bench.open()
    assert bench.nvml.num_inits == 0


def test_an_old_pynvml_without_the_field_falls_back() -> None:
    class Old(FakeNvml):
        def __getattr__(self, name: str) -> Any:
            if name == "NVML_FI_DEV_POWER_INSTANT":
                raise AttributeError(name)
            return super().__getattr__(name)

    clock = EventClock()
    old = Old(clock, FakeGpu(power=wavy))
    meter = NvmlPower(0, nvml=old, timing=clock.timing)
    assert "nvmlDeviceGetPowerUsage" in meter.provenances["energy_j"].source


def test_closing_ends_the_sampling_and_lets_nvml_go_once() -> None:
    bench = Bench().open()
    bench.nvml.nvmlInit()  # somebody else's
    bench.meter.close()
    bench.meter.close()
    assert bench.nvml.num_inits == 1
    before = bench.nvml.num_reads
    bench.clock.advance(5.0)
    assert bench.nvml.num_reads == before
    with pytest.raises(MeterError, match="has been closed"):
        bench.meter.start()


def test_the_word_opens_the_gpu_that_cuda_means(monkeypatch: pytest.MonkeyPatch) -> None:
    meter: Meter = EnergyNvmlPower()
    assert meter.scope == "block"
    monkeypatch.setattr(energy_nvml_power, "cuda_uuid", {"cuda:1": "GPU-b"}.__getitem__)
    gpu = FakeGpu(uuid="GPU-b", power=lambda second: 400 + 100 * math.sin(50 * second), power_tick_s=0.005)
    with FakeNvml(time.perf_counter_ns, FakeGpu(uuid="GPU-a"), gpu).install() as nvml:
        instrument = meter.open("cuda:1")
        instrument.close()
    assert instrument.provenances["energy_j"].kind == "measured"
    assert nvml.num_inits == 0


def test_the_word_is_for_gpus_only() -> None:
    with pytest.raises(MeterError, match="NVML reads NVIDIA GPUs"):
        EnergyNvmlPower().open("cpu")
