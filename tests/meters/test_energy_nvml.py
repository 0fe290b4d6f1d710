from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument
from compressbench.meters.energy_nvml import NvmlEnergy


class GpuError(Exception):
    pass


class FakeGpu:
    """NVML, a clock and sleep in one: power as steps in time, integrated into a counter that moves in ticks."""

    NVMLError = GpuError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, tick_s: float = 0.1, watts: float = 400.0) -> None:
        self.tick_s, self.now_s, self.steps = tick_s, 0.0137, [(0.0, watts)]
        self.calls: list[str] = []
        self.processes = 1
        self.mig: list[int] | GpuError = GpuError("Not Supported")
        self.counter: Any = None  # given instead of the integral
        self.offset_mj = 5_000_000

    def set_power(self, watts: float) -> None:
        self.steps.append((self.now_s, watts))

    def joules_until(self, end_s: float) -> float:
        spans = pairwise([*self.steps, (math.inf, 0.0)])
        return sum(watts * max(0.0, min(after_s, end_s) - at_s) for (at_s, watts), (after_s, _) in spans)

    def clock(self) -> int:
        return round(self.now_s * 1e9)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        self.calls.append("init")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.calls.append("shutdown")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"index {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-1":
            raise GpuError("Not Found")
        return "uuid"

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        if isinstance(self.mig, GpuError):
            raise self.mig
        return self.mig

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[int]:  # noqa: N802
        if self.processes < 0:
            raise GpuError("Not Supported")
        return [0] * self.processes

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> Any:  # noqa: N802
        self.now_s += 5e-5
        if isinstance(self.counter, GpuError):
            raise self.counter
        if isinstance(self.counter, list):
            return self.counter.pop(0)
        if self.counter is not None:
            return self.counter
        edge_s = math.floor(self.now_s / self.tick_s + 1e-9) * self.tick_s
        return self.offset_mj + math.floor(self.joules_until(edge_s) * 1e3)


def open_meter(gpu: FakeGpu, device: int | str = 0) -> NvmlEnergy:
    return NvmlEnergy(device, nvml=gpu, clock=gpu.clock, sleep=gpu.sleep)


def joules_of(meter: NvmlEnergy, gpu: FakeGpu, seconds: float) -> float:
    meter.start()
    gpu.sleep(seconds)
    return meter.stop()["energy_j"]


@pytest.mark.parametrize("tick_s", [0.02, 0.1, 0.25])
def test_the_tick_is_found_and_decides_the_shortest_window(tick_s: float) -> None:
    meter: Instrument = (nvml := open_meter(FakeGpu(tick_s)))
    assert nvml.tick_s == pytest.approx(tick_s, abs=0.002)
    assert meter.min_window_s == max(1.0, 10 * nvml.tick_s)
    assert meter.provenance.kind == "measured"
    assert meter.provenance.boundary == "device"
    assert f"tick {nvml.tick_s * 1e3:.0f} ms" in meter.provenance.source


def test_the_uncertainty_has_the_gain_and_the_edge() -> None:
    uncertainty = open_meter(FakeGpu(0.1)).provenance.relative_uncertainty
    assert uncertainty == pytest.approx(math.hypot(0.05, 0.05), rel=0.05)


@pytest.mark.parametrize("tick_s", [0.02, 0.1])
@pytest.mark.parametrize("seconds", [0.253, 0.55, 1.05, 2.099, 5.001])
def test_joules_are_power_times_time(tick_s: float, seconds: float) -> None:
    gpu = FakeGpu(tick_s, watts=400)
    assert joules_of(open_meter(gpu), gpu, seconds) == pytest.approx(400 * seconds, rel=0.03 if seconds < 1 else 0.005)


@pytest.mark.parametrize("seconds", [1.001, 1.05, 1.099])
def test_what_the_gpu_does_before_and_after_the_window_does_not_count(seconds: float) -> None:
    gpu = FakeGpu(0.1, watts=60)
    meter = open_meter(gpu)
    meter.start()
    gpu.set_power(700)
    gpu.sleep(seconds)
    gpu.set_power(60)
    assert meter.stop()["energy_j"] == pytest.approx(700 * seconds, rel=0.01)


def test_windows_add_up() -> None:
    gpu = FakeGpu(0.1, watts=250)
    meter = open_meter(gpu)
    assert sum(joules_of(meter, gpu, 1.37) for _ in range(10)) == pytest.approx(250 * 13.7, rel=0.005)


def test_a_counter_that_does_not_move_is_stuck() -> None:
    gpu = FakeGpu()
    gpu.counter = 7
    with pytest.raises(MeterError, match="stuck"):
        open_meter(gpu)
    assert gpu.calls == ["init", "shutdown"]
    assert gpu.now_s < 3.1


def test_a_counter_that_stops_before_a_window_is_stuck() -> None:
    gpu = FakeGpu()
    meter = open_meter(gpu)
    gpu.counter, before_s = 9_000_000, gpu.now_s
    with pytest.raises(MeterError, match="stuck"):
        meter.start()
    assert gpu.now_s - before_s < 0.6


@pytest.mark.parametrize(("before_s", "got"), [(0.0, "0 J in a window of 1.2 s"), (0.5, "no increment in 5 ticks")])
def test_a_counter_that_stops_in_a_window_is_stuck(before_s: float, got: str) -> None:
    gpu = FakeGpu()
    meter = open_meter(gpu)
    meter.start()
    gpu.sleep(before_s)
    gpu.counter = gpu.nvmlDeviceGetTotalEnergyConsumption("")
    gpu.sleep(1.2)
    with pytest.raises(MeterError, match=f"stuck .got {got}"):
        meter.stop()


def test_a_counter_that_was_reset_voids_the_window() -> None:
    gpu = FakeGpu()
    meter = open_meter(gpu)
    meter.start()
    gpu.sleep(1.2)
    gpu.offset_mj = 0
    with pytest.raises(MeterError, match="backwards"):
        meter.stop()


def test_a_counter_that_goes_backwards_while_an_edge_is_awaited_has_no_edge() -> None:
    gpu = FakeGpu()
    meter = open_meter(gpu)
    gpu.counter = [9_000_000, 9_000_000, 100]
    with pytest.raises(MeterError, match=r"backwards .got 9000000 then 100 mJ"):
        meter.start()


def test_a_lost_gpu_voids_the_window() -> None:
    gpu = FakeGpu()
    meter = open_meter(gpu)
    meter.start()
    gpu.counter = GpuError("GPU is lost")
    with pytest.raises(MeterError, match="GPU is lost"):
        meter.stop()


@pytest.mark.parametrize("garbage", ["12", 1.5, -1])
def test_garbage_is_refused(garbage: object) -> None:
    gpu = FakeGpu()
    meter = open_meter(gpu)
    gpu.counter = garbage
    with pytest.raises(MeterError, match="something else than millijoules"):
        meter.start()


def test_a_window_shorter_than_a_tick_has_no_number() -> None:
    gpu = FakeGpu(0.1)
    meter = open_meter(gpu)
    meter.start()
    gpu.sleep(0.03)
    with pytest.raises(MeterError, match="shorter than a tick"):
        meter.stop()


def test_a_window_needs_a_start_of_its_own() -> None:
    gpu = FakeGpu()
    meter = open_meter(gpu)
    joules_of(meter, gpu, 1.0)
    with pytest.raises(MeterError, match="before it was started"):
        meter.stop()


def test_mig_mode_is_refused_and_its_absence_is_fine() -> None:
    gpu = FakeGpu()
    gpu.mig = [1, 1]
    with pytest.raises(MeterError, match="MIG"):
        open_meter(gpu)
    gpu.mig = [0, 1]
    assert open_meter(gpu).notes == []


@pytest.mark.parametrize(("processes", "word"), [(3, "3 processes"), (-1, "can't be read")])
def test_sharing_the_gpu_is_noted(processes: int, word: str) -> None:
    gpu = FakeGpu()
    gpu.processes = processes
    (note,) = open_meter(gpu).notes
    assert word in note


def test_a_device_can_be_named_by_its_uuid() -> None:
    assert open_meter(FakeGpu(), "GPU-1").tick_s > 0
    gpu = FakeGpu()
    with pytest.raises(MeterError, match="nvmlDeviceGetHandleByUUID"):
        open_meter(gpu, "GPU-2")
    assert gpu.calls == ["init", "shutdown"]


def test_closing_lets_nvml_go() -> None:
    gpu = FakeGpu()
    open_meter(gpu).close()
    assert gpu.calls == ["init", "shutdown"]


def test_the_names_that_are_used_exist_in_pynvml() -> None:
    pynvml: Any = pytest.importorskip("pynvml")
    names = [name for name in vars(FakeGpu) if name.lower().startswith("nvml")]
    assert [name for name in names if not hasattr(pynvml, name)] == []
    assert pynvml.NVML_DEVICE_MIG_ENABLE == FakeGpu.NVML_DEVICE_MIG_ENABLE
