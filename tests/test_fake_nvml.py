from __future__ import annotations

import inspect
import math
import os
import sys
from itertools import pairwise
from typing import Any

import pynvml
import pytest

from compressbench.testing.event_clock import EventClock
from compressbench.testing.nvml import FakeGpu, FakeNvml
from compressbench.testing.nvml_device import PowerCurve


def opened(*gpus: FakeGpu, **settings: Any) -> tuple[EventClock, FakeNvml]:
    clock = EventClock()
    nvml = FakeNvml(clock, *gpus, **settings)
    nvml.nvmlInit()
    return clock, nvml


def counter_at(nvml: FakeNvml, clock: EventClock, second: float) -> int:
    clock.advance(second - nvml.now_s)
    return nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByIndex(0))


def test_what_it_has_exists_in_pynvml_with_as_many_arguments() -> None:
    names = [name for name in vars(FakeNvml) if name.startswith("nvml")]
    assert len(names) > 25
    for name in names:
        real = getattr(pynvml, name)
        if name != "nvmlInitWithFlags":  # the real one's parameters depend on how pynvml was built
            wanted = list(inspect.signature(real).parameters)
            got = list(inspect.signature(getattr(FakeNvml, name)).parameters)[1:]
            assert len(got) == len(wanted), name


def test_constants_and_errors_are_those_of_pynvml() -> None:
    nvml = FakeNvml(EventClock())
    assert nvml.NVML_FI_DEV_POWER_INSTANT == 186
    assert nvml.NVMLError is pynvml.NVMLError
    with pytest.raises(AttributeError):
        _ = nvml.NVML_NO_SUCH_CONSTANT


def test_a_function_that_is_not_faked_is_not_supported() -> None:
    _, nvml = opened()
    with pytest.raises(pynvml.NVMLError_NotSupported):
        nvml.nvmlDeviceGetFanSpeed(nvml.nvmlDeviceGetHandleByIndex(0))


@pytest.mark.parametrize("second", [0.05, 0.1, 0.1999, 0.2, 7.77])
def test_the_counter_has_the_energy_up_to_its_last_tick(second: float) -> None:
    clock, nvml = opened(FakeGpu(power=400.0, tick_s=0.1, gain=1.03, offset_mj=77))
    num_ticks = math.floor(second * 10 + 1e-6)
    clock.advance(1e-6)
    assert counter_at(nvml, clock, second + 1e-6) == pytest.approx(77 + 1.03 * 400 * 0.1 * num_ticks * 1e3, abs=1)


@pytest.mark.parametrize("begin_s", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("end_s", [2.5, 3.0, 99.0])
def test_the_truth_about_steps_is_their_sum(begin_s: float, end_s: float) -> None:
    steps = [(0.0, 100.0), (1.0, 400.0), (3.0, 50.0)]
    curve = PowerCurve(steps)
    spans = pairwise([*steps, (math.inf, 0.0)])
    brute = sum(watts * max(0.0, min(until, end_s) - max(since, begin_s)) for (since, watts), (until, _) in spans)
    assert curve.joules(end_s) - curve.joules(begin_s) == pytest.approx(brute, abs=1e-9)


def test_the_truth_about_a_function_is_its_integral() -> None:
    curve = PowerCurve(lambda second: 400 + 100 * math.sin(5 * second))
    for until_s in (0.0, 0.0005, 1.2345, 10.0):
        exact = 400 * until_s + 20 * (1 - math.cos(5 * until_s))
        assert curve.joules(until_s) == pytest.approx(exact, abs=1e-3)


def test_power_can_be_set_as_time_goes_by() -> None:
    clock, nvml = opened(FakeGpu(power=100.0))
    begin_ns = clock()
    clock.advance(2.0)
    nvml.set_power(400.0)
    clock.advance(0.5)
    nvml.set_power(50.0)
    clock.advance(1.0)
    assert nvml.joules_between(begin_ns, clock()) == pytest.approx(200 + 200 + 50)
    with pytest.raises(ValueError, match="power can only be set"):
        FakeNvml(clock, FakeGpu(power=lambda second: second)).set_power(1.0)


def test_jittered_ticks_are_irregular_and_the_energy_is_that_of_their_moment() -> None:
    gpu = FakeGpu(power=1000.0, tick_s=0.1, jitter=0.4, offset_mj=0, seed=3)
    values = [gpu.counter_mj(step * 1e-4) for step in range(100_000)]
    moments = [step * 1e-4 for step, (before, after) in enumerate(pairwise(values), 1) if before != after]
    gaps = [after - before for before, after in pairwise(moments)]
    assert all(after >= before for before, after in pairwise(values))
    assert 0.05 < min(gaps) < 0.08 < 0.12 < max(gaps) < 0.15
    assert sum(gaps) / len(gaps) == pytest.approx(0.1, rel=0.01)
    # 1 mJ per microsecond of 1000 W: at an update the counter is the time
    assert all(abs(gpu.counter_mj(moment) - 1e6 * moment) < 110 for moment in moments)


def test_with_a_lag_an_update_is_seen_later_than_it_was_made() -> None:
    gpu = FakeGpu(power=1000.0, tick_s=0.1, lag_s=0.05, offset_mj=0)
    seen = [
        step * 1e-4 for step in range(1, 20_000) if gpu.counter_mj(step * 1e-4) != gpu.counter_mj((step - 1) * 1e-4)
    ]
    lags = [moment - gpu.counter_mj(moment) * 1e-6 for moment in seen]
    assert all(0 <= lag <= 0.0502 for lag in lags)
    assert max(lags) - min(lags) > 0.02


def test_a_lost_gpu_answers_nothing_until_it_is_back() -> None:
    clock, nvml = opened(FakeGpu(lost_at_s=1.0, back_at_s=2.0))
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    clock.advance(1.0)
    for read in (nvml.nvmlDeviceGetTotalEnergyConsumption, nvml.nvmlDeviceGetPowerUsage, nvml.nvmlDeviceGetName):
        with pytest.raises(pynvml.NVMLError_GpuIsLost) as error:
            read(handle)
        assert error.value.value == 15
    clock.advance(1.0)
    assert nvml.nvmlDeviceGetName(handle) == "Fake H100"


def test_a_reset_counter_begins_at_zero_and_goes_on() -> None:
    clock, nvml = opened(FakeGpu(power=400.0, tick_s=0.1, reset_at_s=1.05))
    assert counter_at(nvml, clock, 1.049) == 5_400_000
    assert counter_at(nvml, clock, 1.051) == 0
    assert counter_at(nvml, clock, 1.25) == pytest.approx(400 * 0.15 * 1e3, abs=1)


def test_a_stuck_counter_stands_still() -> None:
    clock, nvml = opened(FakeGpu(stuck_at_s=1.05, unstuck_at_s=3.0))
    stuck = counter_at(nvml, clock, 1.06)
    assert counter_at(nvml, clock, 2.99) == stuck
    assert counter_at(nvml, clock, 3.05) > stuck


def test_a_slow_tick_is_ten_times_as_long() -> None:
    gpu = FakeGpu(slow_at_s=1.05)
    moments = [n for n in range(1, 6_000) if gpu.counter_mj(n * 1e-3) != gpu.counter_mj((n - 1) * 1e-3)]
    assert [
        gap for before, gap in zip(moments, (b - a for a, b in pairwise(moments)), strict=False) if before > 2_000
    ] == [1000] * 3


def test_power_is_an_average_or_momentary() -> None:
    gpu = FakeGpu(power=[(0.0, 100.0), (5.0, 500.0)], power_tick_s=0.1, power_instant_s=0.025, gain=1.01)
    clock, nvml = opened(gpu)
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    clock.advance(5.45)
    assert nvml.nvmlDeviceGetPowerUsage(handle) == round(1.01 * (0.4 * 500 + 0.6 * 100) * 1e3)
    (instant,) = nvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])
    assert (instant.nvmlReturn, instant.valueType) == (0, pynvml.NVML_VALUE_TYPE_UNSIGNED_INT)
    assert instant.value.uiVal == round(1.01 * 500 * 1e3)


def test_fields_that_are_not_supported_say_so_one_by_one() -> None:
    clock, nvml = opened(FakeGpu(unsupported=frozenset({"NVML_FI_DEV_POWER_INSTANT"})))
    clock.advance(0.35)
    asked = [pynvml.NVML_FI_DEV_POWER_INSTANT, (pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, 0), (185, 1)]
    found = nvml.nvmlDeviceGetFieldValues(nvml.nvmlDeviceGetHandleByIndex(0), asked)
    assert [one.nvmlReturn for one in found] == [3, 0, 3]
    assert found[1].value.ullVal == 5_120_000


def test_what_changes_over_time_changes_then() -> None:
    gpu = FakeGpu(
        event_reasons=[(0.0, 0), (1.0, pynvml.nvmlClocksEventReasonSwPowerCap)],
        sm_clock_mhz=[(0.0, 1980), (1.0, 1500)],
        temperature_c=[(0.0, 40), (1.0, 70)],
        power_limit_w=[(0.0, 700), (1.0, 350)],
    )
    clock, nvml = opened(gpu)
    handle = nvml.nvmlDeviceGetHandleByIndex(0)

    def read() -> list[int]:
        return [
            nvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
            nvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            nvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            nvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
            nvml.nvmlDeviceGetPowerManagementLimit(handle),
            nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle),
        ]

    assert read() == [0, 1980, 2619, 40, 700_000, 700_000]
    clock.advance(1.0)
    assert read() == [4, 1500, 2619, 70, 350_000, 700_000]


def test_several_gpus_are_found_by_index_and_uuid() -> None:
    _, nvml = opened(FakeGpu(uuid="GPU-a", name="A"), FakeGpu(uuid="GPU-b", name="B", processes=[os.getpid(), 1, 2]))
    assert nvml.nvmlDeviceGetCount() == 2
    handle = nvml.nvmlDeviceGetHandleByUUID("GPU-b")
    assert nvml.nvmlDeviceGetIndex(handle) == 1
    assert nvml.nvmlDeviceGetName(handle) == "B"
    assert [process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)] == [os.getpid(), 1, 2]
    with pytest.raises(pynvml.NVMLError_NotFound):
        nvml.nvmlDeviceGetHandleByUUID("GPU-c")
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceGetHandleByIndex(2)


def test_mig_mode_is_on_off_or_not_supported() -> None:
    for is_mig, wanted in ((True, [1, 1]), (False, [0, 0])):
        _, nvml = opened(FakeGpu(is_mig=is_mig))
        assert nvml.nvmlDeviceGetMigMode(nvml.nvmlDeviceGetHandleByIndex(0)) == wanted
    _, nvml = opened()
    with pytest.raises(pynvml.NVMLError_NotSupported):
        nvml.nvmlDeviceGetMigMode(nvml.nvmlDeviceGetHandleByIndex(0))


def test_nothing_works_before_it_is_initialised() -> None:
    nvml = FakeNvml(EventClock())
    for call in (nvml.nvmlDeviceGetCount, lambda: nvml.nvmlDeviceGetHandleByIndex(0), nvml.nvmlShutdown):
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            call()
    nvml.nvmlInit()
    nvml.nvmlShutdown()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        nvml.nvmlDeviceGetName(nvml.gpus[0])


def test_reading_takes_as_long_as_it_is_told() -> None:
    clock, nvml = opened(read_s=0.002)
    before_ns = clock()
    nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByIndex(0))
    assert clock() - before_ns == 2_000_000


def test_installed_it_is_pynvml_for_as_long_as_it_is() -> None:
    from compressbench.records.gpus import read_gpus

    real, nvml = sys.modules["pynvml"], FakeNvml(EventClock(), FakeGpu(name="Fake L4"))
    with nvml.install():
        import pynvml as found

        assert found is nvml
        gpus = read_gpus()
    assert sys.modules["pynvml"] is real
    assert gpus is not None
    assert [gpu.name for gpu in gpus] == ["Fake L4"]
    assert nvml.num_inits == 0


def test_codecarbon_runs_on_it_and_errs_by_its_ticks() -> None:
    gpu: Any = pytest.importorskip("codecarbon.core.gpu")
    from codecarbon.core.units import Time

    before = (gpu.pynvml, gpu.PYNVML_AVAILABLE, gpu.is_nvidia_system)
    clock = EventClock()
    with FakeNvml(clock, FakeGpu(power=400.0, tick_s=0.1)).install():
        assert gpu.is_nvidia_system()
        devices = gpu.AllGPUDevices()
        clock.advance(0.05)
        devices.start()
        clock.advance(0.96)
        (delta,) = devices.get_delta(Time.from_seconds(0.96))
    # 384 J are true; ten ticks fell into the window
    assert delta["delta_energy_consumption"].kWh * 3.6e6 == pytest.approx(400.0, abs=0.1)
    assert (gpu.pynvml, gpu.PYNVML_AVAILABLE, gpu.is_nvidia_system) == before


def test_an_event_clock_runs_what_is_due_in_order_and_at_its_time() -> None:
    clock, seen = EventClock(0), list[tuple[str, int]]()

    def every(name: str, seconds: float) -> Any:
        def step() -> float:
            seen.append((name, clock()))
            return seconds

        return step

    clock.attach(every("a", 0.3))
    end_b = clock.attach(every("b", 0.2))
    clock.advance(0.5)
    end_b()
    clock.advance(0.2)
    milliseconds = [(name, moment // 1_000_000) for name, moment in seen]
    assert milliseconds == [("a", 0), ("b", 0), ("b", 200), ("a", 300), ("b", 400), ("a", 600)]
    assert clock() == 700_000_000


def test_a_step_that_takes_time_delays_what_follows() -> None:
    clock, seen = EventClock(0), list[int]()

    def slow() -> float:
        seen.append(clock() // 1_000_000)
        clock.sleep(0.15)
        return 0.1

    clock.attach(slow)
    clock.advance(0.6)
    assert seen == [0, 250, 500]
    assert clock() == 650_000_000
