"""Evidence of a GPU on a fake NVML that is true in time: throttling inside of blocks, clocks, others, and every fault."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from compressbench.measure.gpu_evidence import GpuWatcher
from compressbench.measure.interference import GpuEvidence, Watcher
from compressbench.meters.edges import Step
from compressbench.records.evidence import NO_GPU_EVIDENCE, DisturbanceRule, Evidence, disturbances
from compressbench.testing.event_clock import EventClock
from compressbench.testing.nvml import FakeGpu, FakeNvml

US = os.getpid()
COLUMNS = (
    *("gpu_sm_clock_hz", "gpu_memory_clock_hz", "gpu_throttle_reasons", "gpu_temperature_c", "gpu_power_limit_w"),
    "gpu_num_other_processes",
)
POWER_CAP = 0x4


def watch(
    gpu: FakeGpu, blocks_s: tuple[float, ...] = (1.0,), *, sampled: bool = True, own_pids: tuple[int, ...] = ()
) -> GpuEvidence:
    """Blocks of these lengths, one right after the other, from time 0 on."""
    clock = EventClock()
    background: Callable[[Step], Callable[[], None]] | None = clock.attach if sampled else None
    watcher = GpuWatcher(0, nvml=FakeNvml(clock, gpu), own_pids=own_pids, background=background)
    for seconds in blocks_s:
        watcher.before()
        clock.advance(seconds)
        watcher.after()
    found = watcher.evidence()
    watcher.close()
    return found


def test_everything_that_can_be_read_is_there_in_si_units() -> None:
    found = watch(FakeGpu(power_limit_w=650.0))
    assert found.columns == {
        "gpu_sm_clock_hz": (1980e6,),
        "gpu_memory_clock_hz": (2619e6,),
        "gpu_throttle_reasons": (0.0,),
        "gpu_temperature_c": (45.0,),
        "gpu_power_limit_w": (650.0,),
        "gpu_num_other_processes": (0.0,),
    }
    assert not found.unread


def test_a_throttling_in_the_middle_of_a_block_is_seen_by_the_samples_alone() -> None:
    steps = [(0.0, 0), (1.3, POWER_CAP), (1.55, 0)]
    assert watch(FakeGpu(event_reasons=steps), (1.0, 1.0, 1.0)).columns["gpu_throttle_reasons"] == (0.0, 4.0, 0.0)
    unseen = watch(FakeGpu(event_reasons=steps), (1.0, 1.0, 1.0), sampled=False)
    assert unseen.columns["gpu_throttle_reasons"] == (0.0, 0.0, 0.0)


def test_reasons_are_or_ed_over_the_block() -> None:
    steps = [(0.0, 0x1), (0.25, POWER_CAP), (0.45, 0x20)]
    assert watch(FakeGpu(event_reasons=steps)).columns["gpu_throttle_reasons"] == (float(0x1 | POWER_CAP | 0x20),)


def test_ten_samples_a_second_make_the_mean_clock_and_the_highest_temperature() -> None:
    gpu = FakeGpu(sm_clock_mhz=[(0.0, 1000), (0.55, 1600)], temperature_c=[(0.0, 50), (0.35, 77), (0.45, 51)])
    found = watch(gpu)
    assert found.columns["gpu_temperature_c"] == (77.0,)
    # before, ten or eleven samples inside, after: half of the time at each clock
    (clock_hz,) = found.columns["gpu_sm_clock_hz"]
    assert clock_hz == pytest.approx(1300e6, rel=0.03)


def test_between_blocks_nothing_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, read_at_s = EventClock(), list[float]()
    nvml = FakeNvml(clock, FakeGpu(event_reasons=[(0, 0), (2, 8), (3, 0)]))

    def temperature(*_: object) -> int:
        read_at_s.append(nvml.now_s)
        return 45

    monkeypatch.setattr(nvml, "nvmlDeviceGetTemperature", temperature, raising=False)
    watcher = GpuWatcher(0, nvml=nvml, background=clock.attach)
    for _ in range(2):
        watcher.before()
        clock.advance(1.0)
        watcher.after()
        clock.advance(2.5)
    assert watcher.evidence().columns["gpu_throttle_reasons"] == (0.0, 0.0)
    assert len(read_at_s) >= 2 * (2 + 9)
    assert not [at for at in read_at_s if 1.0 < at < 3.5 or at > 4.5]


@pytest.mark.parametrize(
    ("listed", "own_pids", "expected"),
    [
        ([US], (), 0.0), ([US, 7], (), 1.0), ([7, US, 8], (), 2.0), ([US, 7], (7,), 0.0), ([US, 7, 8], (7,), 1.0),
        ([12345678], (), 0.0), ([12345678, 12345679], (), 1.0),  # numbers of another namespace
    ],
)  # fmt: skip
def test_processes_that_are_not_ours_are_counted(listed: list[int], own_pids: tuple[int, ...], expected: float) -> None:
    found = watch(FakeGpu(processes=listed), own_pids=own_pids)
    assert found.columns["gpu_num_other_processes"] == (expected,)
    assert any("own number" in note for note in found.notes) == (US not in listed)


def test_a_list_without_even_ourselves_says_nothing_of_others() -> None:
    found = watch(FakeGpu(processes=[]))
    assert "gpu_num_other_processes" not in found.columns
    assert "doesn't list this process" in found.unread["gpu_num_other_processes"]


FUNCTIONS = {
    "nvmlDeviceGetCurrentClocksEventReasons": ("gpu_throttle_reasons",),
    "nvmlDeviceGetClockInfo": ("gpu_sm_clock_hz", "gpu_memory_clock_hz"),
    "nvmlDeviceGetTemperature": ("gpu_temperature_c",),
    "nvmlDeviceGetPowerManagementLimit": ("gpu_power_limit_w",),
    "nvmlDeviceGetComputeRunningProcesses": ("gpu_num_other_processes",),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_a_gpu_does_not_support_costs_its_columns_alone_and_says_so(function: str) -> None:
    found = watch(FakeGpu(unsupported=frozenset({function})))
    assert set(found.unread) == set(FUNCTIONS[function])
    assert set(found.columns) == set(COLUMNS) - set(FUNCTIONS[function])
    assert all("Not Supported" in reason and function in reason for reason in found.unread.values())


def test_a_gpu_that_is_lost_in_the_middle_and_comes_back_has_no_value_in_that_block() -> None:
    found = watch(FakeGpu(lost_at_s=1.5, back_at_s=2.5), (1.0, 0.9, 1.2, 1.0))
    for name in COLUMNS:
        assert [value is None for value in found.columns[name]] == [False, True, True, False]
        assert "lost" in found.unread[name]


def test_a_throttling_that_was_seen_stays_seen_if_the_gpu_is_lost_after_it() -> None:
    found = watch(FakeGpu(event_reasons=[(0.0, 0), (0.2, POWER_CAP)], lost_at_s=0.5), (1.0,))
    assert found.columns["gpu_throttle_reasons"] == (float(POWER_CAP),)
    assert "gpu_sm_clock_hz" not in found.columns
    idle = watch(FakeGpu(event_reasons=0x1, lost_at_s=0.5), (1.0,))
    assert "gpu_throttle_reasons" not in idle.columns


@pytest.mark.parametrize("device", [3, "GPU-unknown"])
def test_a_device_that_nvml_does_not_have_is_absent_with_the_reason_and_no_error(device: int | str) -> None:
    nvml = FakeNvml(EventClock())
    watcher = GpuWatcher(device, nvml=nvml)
    watcher.before()
    watcher.after()
    found = watcher.evidence()
    watcher.close()
    assert not found.columns
    assert set(found.unread) == set(COLUMNS)
    assert nvml.num_inits == 0


def test_without_pynvml_everything_is_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    watcher = GpuWatcher(0)
    watcher.before()
    watcher.after()
    assert set(watcher.evidence().unread) == set(COLUMNS)
    assert "pynvml" in watcher.evidence().unread["gpu_sm_clock_hz"]


def test_an_old_pynvml_calls_the_reasons_throttle_reasons() -> None:
    fake = FakeNvml(EventClock(), FakeGpu(event_reasons=POWER_CAP))
    names = ("NVMLError", "nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetCurrentClocksThrottleReasons")
    old: Any = SimpleNamespace(**{name: getattr(fake, name) for name in names})
    watcher = GpuWatcher(0, nvml=old, background=None)
    watcher.before()
    watcher.after()
    found = watcher.evidence()
    assert found.columns == {"gpu_throttle_reasons": (float(POWER_CAP),)}
    assert "this pynvml has no nvmlDeviceGetClockInfo" in found.unread["gpu_sm_clock_hz"]


@pytest.mark.parametrize("garbage", [None, "1980", -1, 1.5])
def test_something_else_than_a_number_is_no_value(monkeypatch: pytest.MonkeyPatch, garbage: Any) -> None:
    monkeypatch.setattr(FakeNvml, "nvmlDeviceGetTemperature", lambda *_: garbage)
    found = watch(FakeGpu())
    assert set(found.unread) == {"gpu_temperature_c"}
    assert "something else than a number" in found.unread["gpu_temperature_c"]


def test_settings_of_the_device_are_noted_and_unknown_ones_are_called_unknown() -> None:
    found = watch(FakeGpu(is_mig=True, power_limit_w=500.0))
    assert found.notes[1:] == ("MIG: on", "persistence mode: on", "power limit: 500 W, default 700 W")
    assert found.notes[0].startswith("ECC: ")
    unknown = watch(FakeGpu(unsupported=frozenset({"nvmlDeviceGetPowerManagementDefaultLimit"})))
    assert unknown.notes[1] == "MIG: unknown (Not Supported)"
    assert unknown.notes[3] == "power limit: unknown (Not Supported)"


def test_nvml_is_shut_down_as_often_as_it_was_initialised_and_sampling_ends_before_that() -> None:
    nvml, ended_at = FakeNvml(EventClock()), list[int]()

    def background(step: Step) -> Callable[[], None]:
        assert step() == pytest.approx(0.1)
        return lambda: ended_at.append(nvml.num_inits)

    watcher = GpuWatcher(0, nvml=nvml, background=background)
    watcher.before()
    watcher.close()
    assert ended_at == [1]
    assert nvml.num_inits == 0


class Refusing(FakeNvml):
    """An NVML that can't be shut down."""

    def nvmlShutdown(self) -> None:  # noqa: N802 -- NVML's name
        raise self.NVMLError(self.NVML_ERROR_UNINITIALIZED)


def test_an_nvml_that_can_not_be_shut_down_costs_nothing_that_was_read() -> None:
    nvml = Refusing(EventClock())
    watcher = GpuWatcher(0, nvml=nvml, background=None)
    watcher.before()
    watcher.after()
    watcher.close()
    assert watcher.evidence().columns["gpu_sm_clock_hz"] == (1980e6,)


def test_nor_does_it_hide_that_there_is_no_such_gpu() -> None:
    unread = GpuWatcher("GPU-unknown", nvml=Refusing(EventClock()), background=None).evidence().unread
    assert {reason for reason in unread.values() if "nvmlDeviceGetHandleByUUID" in reason} == set(unread.values())


def test_a_real_thread_samples_and_ends() -> None:
    watcher = GpuWatcher(0, nvml=FakeNvml())
    watcher.before()
    watcher.after()
    watcher.close()
    assert len(watcher.evidence().columns["gpu_sm_clock_hz"]) == 1


def test_the_watcher_of_the_cpu_takes_the_gpu_along_and_the_rule_judges_it() -> None:
    clock = EventClock()
    gpu = FakeGpu(event_reasons=[(0.0, 0), (1.2, 0x40), (2.0, 0)], lost_at_s=3.05)
    watcher = Watcher(clock=clock, gpu=GpuWatcher(0, nvml=FakeNvml(clock, gpu), background=clock.attach))
    for _ in range(4):
        watcher.before()
        clock.advance(1.0)
        watcher.after()
    found = watcher.evidence()
    quiet = {name: getattr(found, name) for name in COLUMNS}
    on_gpu = Evidence(**quiet, unread=found.unread, notes=found.notes, run_queue_wait_share=(0.0,) * 4)
    expected = [(), ("GPU throttled (HwThermalSlowdown)",), (), (NO_GPU_EVIDENCE,)]
    assert disturbances(on_gpu, DisturbanceRule(), 4) == expected
    assert "MIG: unknown (Not Supported)" in found.notes
