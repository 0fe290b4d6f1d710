"""An opened NVML meter on a fake GPU in simulated time, for tests."""

from __future__ import annotations

from typing import Any, Generic, Self, TypeVar

from compressbench.core.protocols import Instrument, Window
from compressbench.meters.energy_nvml import NvmlEnergy
from compressbench.testing.event_clock import EventClock
from compressbench.testing.nvml import FakeGpu, FakeNvml

Meter = TypeVar("Meter", bound=Instrument)


class GpuBench(Generic[Meter]):
    """An opened meter on a fake GPU, in simulated time. `truths` are the joules of its windows."""

    meter: Meter

    def __init__(self, gpu: FakeGpu | None = None, device: int | str = 0, **settings: Any) -> None:
        self.clock = EventClock()
        self.nvml = FakeNvml(self.clock, gpu or FakeGpu(), **settings)
        self.device, self.truths = device, list[float]()

    def made(self) -> Meter:
        raise NotImplementedError

    def open(self) -> Self:
        self.meter = self.made()
        return self

    def until(self, second: float) -> Self:
        self.clock.advance(second - self.nvml.now_s)
        return self

    def window(self, *seconds: float, pause_s: float = 0.0) -> Self:
        for length_s in seconds:
            self.clock.advance(pause_s)
            self.meter.start()
            begin_ns = self.clock()
            self.clock.advance(length_s)
            self.meter.stop()
            self.truths.append(self.nvml.joules_between(begin_ns, self.clock()))
        return self

    def collect(self) -> list[Window]:
        return self.meter.collect()


class Bench(GpuBench[NvmlEnergy]):
    """NVML's counter. Opening takes 20 ticks, 2.1 s of simulated time at most."""

    def made(self) -> NvmlEnergy:
        return NvmlEnergy(self.device, nvml=self.nvml, timing=self.clock.timing)

    def joules(self) -> list[float]:
        windows = self.collect()
        assert [window.reason for window in windows] == [""] * len(windows)
        return [window.values["energy_j"] for window in windows]

    def reasons(self) -> list[str]:
        return [window.reason for window in self.collect()]
