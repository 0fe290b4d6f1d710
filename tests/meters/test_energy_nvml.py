from __future__ import annotations

import math
import os
import sys
import time
from typing import Any

import pynvml
import pytest
from nvml_bench import Bench

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument, Meter, Window
from compressbench.meters import energy_nvml
from compressbench.meters.energy_nvml import EnergyNvml, NvmlEnergy
from compressbench.testing.event_clock import EventClock
from compressbench.testing.nvml import FakeGpu, FakeNvml


def is_within(window: Window, truth: float) -> bool:
    return abs(window.values["energy_j"] - truth) <= 1.96 * window.uncertainties["energy_j"]


@pytest.mark.parametrize("tick_s", [0.02, 0.1, 0.25])
def test_the_tick_is_found_and_decides_the_shortest_window(tick_s: float) -> None:
    bench = Bench(FakeGpu(tick_s=tick_s)).open()
    meter: Instrument = bench.meter
    how = meter.provenances["energy_j"]
    assert how.tick_s == pytest.approx(tick_s, rel=0.02)
    assert meter.min_window_s == pytest.approx(max(0.5, 10 * tick_s), rel=0.02)
    assert (how.kind, how.source, how.boundary) == ("measured", "NVML total energy counter", "device")
    assert how.relative_uncertainty == 0.05
    assert how.notes == ()
    assert bench.nvml.now_s < min(21.5 * tick_s, 5.2)


@pytest.mark.parametrize("tick_s", [0.02, 0.1])
def test_joules_are_power_times_time(tick_s: float) -> None:
    bench = Bench(FakeGpu(power=400.0, tick_s=tick_s)).open().window(0.55, 1.05, 2.099, 5.001, pause_s=0.123)
    windows = bench.meter.collect()
    for window, truth, most in zip(windows, bench.truths, (0.01, 0.005, 0.002, 0.001), strict=True):
        assert window.values["energy_j"] == pytest.approx(truth, rel=most)
        assert is_within(window, truth)
        assert 0 < window.uncertainties["energy_j"] < 0.01 * truth


@pytest.mark.parametrize("seconds", [1.001, 1.05, 1.099])
def test_what_the_gpu_does_before_and_after_the_window_does_not_count(seconds: float) -> None:
    bench = Bench(FakeGpu(power=60.0)).open().until(3.0)
    bench.meter.start()
    bench.nvml.set_power(700.0)
    bench.clock.advance(seconds)
    bench.meter.stop()
    bench.nvml.set_power(60.0)
    assert bench.joules() == [pytest.approx(700 * seconds, rel=0.004)]


def test_a_gain_error_goes_into_the_number_and_is_stated_apart() -> None:
    bench = Bench(FakeGpu(power=400.0, gain=1.04)).open().window(2.0)
    assert bench.joules() == [pytest.approx(832, rel=0.002)]


def test_windows_add_up() -> None:
    bench = Bench(FakeGpu(power=250.0)).open().window(*[1.37] * 10)
    assert sum(bench.joules()) == pytest.approx(250 * 13.7, rel=0.002)


def test_twice_the_work_is_twice_the_energy() -> None:
    bench = Bench(FakeGpu(power=lambda second: 300 + 100 * math.sin(40 * second))).open().window(2.0, 4.0)
    once, twice = bench.joules()
    assert twice / once == pytest.approx(2.0, rel=0.01)


def test_marking_a_window_reads_nothing() -> None:
    bench = Bench().open()
    before = bench.nvml.num_reads
    for _ in range(100):
        bench.meter.start()
        bench.meter.stop()
    assert bench.nvml.num_reads == before


def test_windows_too_short_for_the_tick_have_no_value() -> None:
    for reason in Bench(FakeGpu(tick_s=0.1)).open().window(0.035, 0.15, pause_s=0.123).reasons():
        assert reason.startswith("below resolution: the NVML energy counter moved ")
        assert reason.endswith("measure 1 s or longer")


# faults


def test_a_lost_gpu_voids_the_windows_it_touches_and_no_others() -> None:
    bench = Bench(FakeGpu(lost_at_s=5.5, back_at_s=8.5)).open().until(3.0).window(1.0, 2.0, 2.0, 3.0, 1.0)
    before, touched, within, after, later = bench.meter.collect()
    for window in (touched, within, after):
        assert not window.values
        assert "GPU is lost" in window.reason
    assert is_within(before, 400.0)
    assert is_within(later, 400.0)


@pytest.mark.parametrize(
    ("value", "word"), [(4, "Insufficient Permissions"), (999, "Unknown Error"), (16, "requires restart")]
)
def test_any_error_of_nvml_is_the_reason(value: int, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench().open().window(1.0)
    bench.clock.advance(0.3)

    def failing(_: Any) -> int:
        raise pynvml.NVMLError(value)

    monkeypatch.setattr(bench.nvml, "nvmlDeviceGetTotalEnergyConsumption", failing)
    good, broken = bench.window(1.0).meter.collect()
    assert good.values
    assert word in broken.reason


@pytest.mark.parametrize("garbage", ["12", 1.5, -1, None])
def test_garbage_is_no_number(garbage: object, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench().open()
    monkeypatch.setattr(bench.nvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: garbage)
    (reason,) = bench.window(1.0).reasons()
    assert f"something else than millijoules (got {garbage!r})" in reason


def test_a_counter_that_was_reset_voids_its_window_and_counts_on() -> None:
    bench = Bench(FakeGpu(power=400.0, reset_at_s=4.53)).open().until(3.0).window(1.0, 1.0, 1.0)
    before, reset, after = bench.meter.collect()
    assert "went backwards, from 6800 to 0 J" in reset.reason
    assert is_within(before, 400.0)
    assert is_within(after, 400.0)


def test_a_counter_that_stops_voids_its_window_and_all_after_it() -> None:
    bench = Bench(FakeGpu(stuck_at_s=5.05)).open().until(3.0).window(1.0, 2.0, 2.0)
    first, half, none = bench.reasons()
    assert first == ""
    assert "stood still for 0.99" in half
    assert "is stuck: 0 increments in 2 s" in none


def test_a_counter_that_goes_on_after_a_pause_counts_again() -> None:
    bench = Bench(FakeGpu(stuck_at_s=4.05, unstuck_at_s=6.05)).open().until(3.0).window(3.5, 2.0)
    paused, after = bench.meter.collect()
    assert is_within(after, 800.0)
    # what it had missed came with its next increment
    assert is_within(paused, 1400.0)


def test_a_counter_that_jumps_is_not_believed() -> None:
    bench = Bench(FakeGpu(power=[(0.0, 400.0), (4.0, 90_000.0), (4.1, 400.0)])).open().until(3.0).window(2.0, 2.0)
    jumped, after = bench.meter.collect()
    assert "rose by" in jumped.reason
    assert is_within(after, 800.0)


def test_a_tick_that_gets_ten_times_slower_asks_for_longer_windows_and_reads_those() -> None:
    bench = Bench(FakeGpu(slow_at_s=5.0)).open().until(6.0).window(1.0, 1.0, 1.0, 10.0, 10.0)
    windows = bench.meter.collect()
    assert [bool(window.values) for window in windows] == [False, False, False, True, True]
    assert "measure 10 s or longer" in windows[2].reason.replace("9.97", "10").replace("9.99", "10")
    for window in windows[3:]:
        assert is_within(window, 4000.0)
        assert window.values["energy_j"] == pytest.approx(4000.0, rel=0.01)


def test_a_suspended_machine_gives_the_truth_or_a_reason() -> None:
    bench = Bench(FakeGpu(power=[(0.0, 400.0), (4.0, 0.0), (3604.0, 400.0)])).open().until(3.0)
    bench.meter.start()
    bench.clock.advance(1.0)
    bench.clock.now_ns += 3_600 * 10**9  # nothing ran, no thread either
    bench.clock.advance(1.0)
    bench.meter.stop()
    (window,) = bench.meter.collect()
    assert not window.values
    assert "stood still for 3.6e+03 s" in window.reason


def test_a_process_that_was_stopped_while_the_gpu_went_on_reads_the_truth() -> None:
    bench = Bench(FakeGpu(power=400.0)).open().until(3.0)
    bench.meter.start()
    bench.clock.advance(1.0)
    bench.clock.now_ns += 60 * 10**9
    bench.clock.advance(1.0)
    bench.meter.stop()
    (window,) = bench.meter.collect()
    assert is_within(window, 62 * 400.0)
    assert window.values["energy_j"] == pytest.approx(62 * 400.0, rel=1e-3)


def test_a_gpu_without_power_is_below_resolution_and_not_0_joules() -> None:
    (reason,) = Bench(FakeGpu(power=[(0.0, 100.0), (3.0, 0.0)])).open().until(4.0).window(2.0).reasons()
    assert "stuck" in reason


# what can't be opened


@pytest.mark.parametrize(("gpu", "word"), [
    (FakeGpu(stuck_at_s=0.0), "stuck .got 0 increments in 5 s"),
    (FakeGpu(lost_at_s=0.0), "GPU is lost"),
    (FakeGpu(unsupported=frozenset({"nvmlDeviceGetTotalEnergyConsumption"})), "Not Supported"),
    (FakeGpu(is_mig=True), "MIG"),
])  # fmt: skip
def test_what_cannot_be_measured_is_not_opened(gpu: FakeGpu, word: str) -> None:
    bench = Bench(gpu)
    with pytest.raises(MeterError, match=word):
        bench.open()
    assert bench.nvml.num_inits == 0
    assert bench.nvml.now_s < 5.2


def test_a_counter_that_appears_late_can_be_opened_then() -> None:
    bench = Bench(FakeGpu(lost_at_s=0.0, back_at_s=5.0))
    with pytest.raises(MeterError, match="GPU is lost"):
        bench.open()
    bench.until(5.0).open().window(1.0)
    assert is_within(bench.meter.collect()[0], 400.0)


def test_a_machine_without_a_driver_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    bench = Bench()
    monkeypatch.setattr(bench.nvml, "nvmlInit", failing)
    with pytest.raises(MeterError, match=r"nvmlInit .got Driver Not Loaded"):
        bench.open()


def test_a_machine_without_pynvml_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MeterError, match="pip install nvidia-ml-py"):
        NvmlEnergy(0)


def test_an_old_pynvml_without_a_function_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    monkeypatch.setattr(bench.nvml, "nvmlDeviceGetTotalEnergyConsumption", None)
    with pytest.raises(MeterError, match="this pynvml has no nvmlDeviceGetTotalEnergyConsumption"):
        bench.open()


def test_mig_mode_that_is_off_or_unknown_is_fine() -> None:
    for is_mig in (False, None):
        assert Bench(FakeGpu(is_mig=is_mig)).open().meter.provenances["energy_j"].notes == ()


@pytest.mark.parametrize(("processes", "words"), [
    ([os.getpid(), 1, 2], ["shared device: 2 other processes compute"]),
    ([1], ["1 other processes (one may be this process"]),
    ([], []),
])  # fmt: skip
def test_sharing_the_gpu_is_noted(processes: list[int], words: list[str]) -> None:
    notes = Bench(FakeGpu(processes=processes)).open().meter.provenances["energy_j"].notes
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))


def test_that_sharing_cannot_be_read_is_noted() -> None:
    (note,) = (
        Bench(FakeGpu(unsupported=frozenset({"nvmlDeviceGetComputeRunningProcesses"})))
        .open()
        .meter.provenances["energy_j"]
        .notes
    )
    assert "can't be read" in note


def test_the_device_is_found_by_its_uuid() -> None:
    gpus = FakeGpu(uuid="GPU-a", power=100.0), FakeGpu(uuid="GPU-b", power=400.0)
    clock = EventClock()
    nvml = FakeNvml(clock, *gpus)
    meter = NvmlEnergy("GPU-b", nvml=nvml, timing=clock.timing)
    meter.start()
    clock.advance(1.0)
    meter.stop()
    assert meter.collect()[0].values["energy_j"] == pytest.approx(400, rel=0.005)
    with pytest.raises(MeterError, match=r"nvmlDeviceGetHandleByUUID .got Not Found"):
        NvmlEnergy("GPU-c", nvml=nvml, timing=clock.timing)
    assert nvml.num_inits == 1


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


# the word of a recipe


def test_the_word_opens_the_gpu_that_cuda_means(monkeypatch: pytest.MonkeyPatch) -> None:
    meter: Meter = EnergyNvml()
    assert meter.scope == "block"
    monkeypatch.setattr(energy_nvml, "cuda_uuid", {"cuda:1": "GPU-b"}.__getitem__)
    nvml = FakeNvml(time.perf_counter_ns, FakeGpu(uuid="GPU-a"), FakeGpu(uuid="GPU-b", tick_s=0.005))
    with nvml.install():
        instrument = meter.open("cuda:1")
        instrument.close()
    assert instrument.provenances["energy_j"].kind == "measured"
    assert nvml.num_inits == 0


def test_the_word_is_for_gpus_only() -> None:
    with pytest.raises(MeterError, match=r"NVML reads NVIDIA GPUs .got the device 'cpu'"):
        EnergyNvml().open("cpu")


def test_in_real_time_with_a_thread_a_window_is_right_or_void() -> None:
    nvml = FakeNvml(time.perf_counter_ns, FakeGpu(power=400.0, tick_s=0.01))
    meter = NvmlEnergy(0, nvml=nvml)
    try:
        meter.start()
        begin_ns = time.perf_counter_ns()
        while time.perf_counter_ns() - begin_ns < 200_000_000:
            sum(range(1000))  # hold the interpreter as a model in Python would
        meter.stop()
        (window,) = meter.collect()
    finally:
        meter.close()
    # on a busy machine the thread may come too late; then there is a reason and no number
    assert window.reason or abs(window.values["energy_j"] - 400 * window.seconds) <= (
        5 * window.uncertainties["energy_j"] + 0.01 * 400 * window.seconds
    )
