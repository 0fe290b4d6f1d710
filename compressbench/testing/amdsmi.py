"""The module amdsmi, true in time: AMD GPUs with counters that tick, and what is known to go wrong with them.

clock = EventClock()
amdsmi = FakeAmdSmi([FakeAmdGpu(power=300.0)], clock)
meter = AmdEnergy(0, amdsmi=amdsmi, timing=clock.timing)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from compressbench.testing.fakes import FakeClock
from compressbench.testing.nvml_device import Power, PowerCurve

NOT_AVAILABLE = "N/A"


@dataclass
class FakeAmdGpu:
    """One GPU. `gain` is what its counter counts per joule, `count` a value that it shows instead, `power_keys` are the
    names under which its power is known, and `unsupported` functions raise. Of an own process `processes` has its
    number."""

    power: Power = 300.0
    name: str = "AMD Instinct MI300X"
    bdf: str = "0000:c1:00.0"
    tick_s: float = 1e-3
    resolution_uj: float = 15.259
    gain: float = 1.0
    power_gain: float = 1.0
    start_count: int = 4_750_896_266
    count: Any = None
    count_key: str = "energy_accumulator"
    power_keys: tuple[str, ...] = ("current_socket_power",)
    partition: str = "SPX"
    unsupported: frozenset[str] = frozenset()
    is_lost: bool = False
    processes: Sequence[int] = field(default_factory=lambda: [os.getpid()])

    def __post_init__(self) -> None:
        self.curve = PowerCurve(self.power)

    def true_joules(self, begin_s: float, end_s: float) -> float:
        return self.curve.joules(end_s) - self.curve.joules(begin_s)

    def shown_count(self, now_s: float) -> Any:
        if self.count is not None:
            return self.count
        ticked_s = int(now_s / self.tick_s + 1e-9) * self.tick_s
        return self.start_count + int(self.gain * self.curve.joules(ticked_s) * 1e6 / self.resolution_uj)


class FakeAmdSmi:
    """Stands in for the module. Handles are the GPUs themselves. Each call takes `call_s` of the clock's time."""

    class AmdSmiException(Exception):
        pass

    class AmdSmiLibraryException(AmdSmiException):
        pass

    def __init__(self, gpus: Sequence[FakeAmdGpu], clock: FakeClock, *, call_s: float = 5e-5) -> None:
        self.gpus, self.clock, self.call_s, self.num_open = list(gpus), clock, call_s, 0

    @property
    def now_s(self) -> float:
        return self.clock() * 1e-9

    def amdsmi_init(self) -> None:
        self.num_open += 1

    def amdsmi_shut_down(self) -> None:
        self.num_open -= 1

    def amdsmi_get_processor_handles(self) -> list[FakeAmdGpu]:
        return self.gpus

    def amdsmi_get_gpu_device_bdf(self, handle: FakeAmdGpu) -> str:
        return handle.bdf

    def amdsmi_get_gpu_asic_info(self, handle: FakeAmdGpu) -> dict[str, str]:
        self._enter(handle, "amdsmi_get_gpu_asic_info")
        return {"market_name": handle.name}

    def amdsmi_get_gpu_compute_partition(self, handle: FakeAmdGpu) -> str:
        self._enter(handle, "amdsmi_get_gpu_compute_partition")
        return handle.partition

    def amdsmi_get_gpu_process_list(self, handle: FakeAmdGpu) -> list[dict[str, Any]]:
        self._enter(handle, "amdsmi_get_gpu_process_list")
        return [{"name": NOT_AVAILABLE, "pid": pid} for pid in handle.processes]

    def amdsmi_get_power_info(self, handle: FakeAmdGpu) -> dict[str, Any]:
        self._enter(handle, "amdsmi_get_power_info")
        watts = round(handle.power_gain * handle.curve.mean_w(self.now_s - 1e-3, self.now_s))
        names = ("socket_power", "current_socket_power", "average_socket_power")
        return {name: watts if name in handle.power_keys else NOT_AVAILABLE for name in names}

    def amdsmi_get_energy_count(self, handle: FakeAmdGpu) -> dict[str, Any]:
        self._enter(handle, "amdsmi_get_energy_count")
        count = handle.shown_count(self.now_s)
        return {handle.count_key: count, "counter_resolution": handle.resolution_uj, "timestamp": self.clock()}

    def _enter(self, handle: FakeAmdGpu, name: str) -> None:
        self.clock.advance(self.call_s)
        if handle.is_lost or name in handle.unsupported:
            code = "32 | AMDSMI_STATUS_NO_DATA" if handle.is_lost else "2 | AMDSMI_STATUS_NOT_SUPPORTED"
            raise self.AmdSmiLibraryException(f"Error code:\n\t{code} - {name}")
