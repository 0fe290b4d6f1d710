"""A time-true stand-in for the module pynvml: whatever reads NVIDIA GPUs through pynvml runs on it, without a GPU.

    clock = EventClock()
    nvml = FakeNvml(clock, FakeGpu(power=400.0, tick_s=0.1, lost_at_s=3.0))
    with nvml.install():
        ...  # import pynvml
    nvml.joules_between(begin_ns, end_ns)  # the truth

Functions, constants and errors have the names and the types of nvidia-ml-py; constants and errors are its own.
"""
# ruff: noqa: N802 - NVML's names

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from compressbench.core.protocols import Clock
from compressbench.testing.nvml_device import FakeGpu, value_at

__all__ = ["FakeGpu", "FakeNvml"]

_UNINITIALIZED, _NOT_SUPPORTED, _NOT_FOUND, _LOST = 1, 3, 6, 15
# codecarbon looks for a GPU once, when these are imported
_THAT_REMEMBER = ("codecarbon.core.gpu_nvidia", "codecarbon.core.gpu")


class FakeNvml:
    """NVML with these GPUs. `clock` is a FakeClock, an EventClock, or time.perf_counter_ns.

    `read_s` is how long a reading of energy or power takes, if the clock can be advanced. `num_inits` counts nvmlInit
    less nvmlShutdown.
    """

    def __init__(self, clock: Clock = time.perf_counter_ns, *gpus: FakeGpu, read_s: float = 0.0) -> None:
        self._clock, self._begin_ns, self.gpus = clock, clock(), gpus or (FakeGpu(),)
        self._real: Any = importlib.import_module("pynvml")
        self.num_inits, self.num_reads = 0, 0
        self._read_s, self._advance = read_s, getattr(clock, "advance", None)

    def __getattr__(self, name: str) -> Any:
        """pynvml's constants and errors. A function that isn't faked is one that these GPUs don't support."""
        real = getattr(self._real, name)
        if not name.startswith("nvml") or not callable(real) or isinstance(real, type):
            return real

        def unsupported(*_: Any) -> Any:
            raise self._error(_NOT_SUPPORTED)

        return unsupported

    # the truth, and what a test changes

    @property
    def now_s(self) -> float:
        """Seconds since this was made."""
        return self.seconds_at(self._clock())

    def seconds_at(self, moment_ns: float) -> float:
        return (moment_ns - self._begin_ns) * 1e-9

    def joules_between(self, begin_ns: float, end_ns: float, index: int = 0) -> float:
        """The energy that a GPU really used between two moments of the clock, without its counter's gain and ticks."""
        curve = self.gpus[index].curve
        return curve.joules(self.seconds_at(end_ns)) - curve.joules(self.seconds_at(begin_ns))

    def set_power(self, watts: float, index: int = 0) -> None:
        """From now on the GPU draws so much. Not for a power that is a function."""
        self.gpus[index].curve.set(self.now_s, watts)

    @contextmanager
    def install(self) -> Iterator[FakeNvml]:
        """Be the module pynvml until the end of the block, for codecarbon as well if it has been imported before."""
        before = sys.modules.get("pynvml")
        remembered = {name: _memory_of(name) for name in _THAT_REMEMBER}
        sys.modules["pynvml"] = self  # type: ignore[assignment]
        for name in remembered:
            _remember(name, {"pynvml": self, "PYNVML_AVAILABLE": True, "is_nvidia_system": _yes})
        try:
            yield self
        finally:
            sys.modules.pop("pynvml")
            if before is not None:
                sys.modules["pynvml"] = before
            for name, memory in remembered.items():
                _remember(name, memory)

    # pynvml

    def nvmlInit(self) -> None:
        self.num_inits += 1

    def nvmlInitWithFlags(self, flags: int) -> None:
        self.num_inits += 1

    def nvmlShutdown(self) -> None:
        self._require_init()
        self.num_inits -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        self._require_init()
        return "999.99"

    def nvmlDeviceGetCount(self) -> int:
        self._require_init()
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        self._require_init()
        if not 0 <= index < len(self.gpus):
            raise self._error(2)
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str | bytes) -> FakeGpu:
        self._require_init()
        wanted = uuid.decode() if isinstance(uuid, bytes) else uuid
        for gpu in self.gpus:
            if gpu.uuid == wanted:
                return gpu
        raise self._error(_NOT_FOUND)

    def nvmlDeviceGetIndex(self, handle: FakeGpu) -> int:
        return next(index for index, gpu in enumerate(self.gpus) if gpu is handle)

    def nvmlDeviceGetUUID(self, handle: FakeGpu) -> str:
        return self._of(handle, "nvmlDeviceGetUUID").uuid

    def nvmlDeviceGetName(self, handle: FakeGpu) -> str:
        return self._of(handle, "nvmlDeviceGetName").name

    def nvmlDeviceGetArchitecture(self, handle: FakeGpu) -> int:
        return self._of(handle, "nvmlDeviceGetArchitecture").architecture

    def nvmlDeviceGetMemoryInfo(self, handle: FakeGpu, version: Any = None) -> Any:
        total = self._of(handle, "nvmlDeviceGetMemoryInfo").memory_bytes
        return SimpleNamespace(total=total, used=total // 8, free=total - total // 8)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: FakeGpu) -> int:
        self._spend()
        return self._of(handle, "nvmlDeviceGetTotalEnergyConsumption").counter_mj(self.now_s)

    def nvmlDeviceGetPowerUsage(self, handle: FakeGpu) -> int:
        self._spend()
        return self._of(handle, "nvmlDeviceGetPowerUsage").average_mw(self.now_s)

    def nvmlDeviceGetFieldValues(self, handle: FakeGpu, field_ids: Sequence[int | tuple[int, int]]) -> list[Any]:
        self._spend()
        gpu = self._of(handle, "nvmlDeviceGetFieldValues")
        return [self._field(gpu, *(given if isinstance(given, tuple) else (given, 0))) for given in field_ids]

    def nvmlDeviceGetMigMode(self, handle: FakeGpu) -> list[int]:
        is_mig = self._of(handle, "nvmlDeviceGetMigMode").is_mig
        if is_mig is None:
            raise self._error(_NOT_SUPPORTED)
        return [int(is_mig), int(is_mig)]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeGpu) -> list[Any]:
        pids = self._of(handle, "nvmlDeviceGetComputeRunningProcesses").processes
        return [SimpleNamespace(pid=pid, usedGpuMemory=1 << 30) for pid in pids]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: FakeGpu) -> list[Any]:
        self._of(handle, "nvmlDeviceGetGraphicsRunningProcesses")
        return []

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: FakeGpu) -> int:
        return int(self._now_of(handle, "nvmlDeviceGetCurrentClocksEventReasons", "event_reasons"))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: FakeGpu) -> int:
        return int(self._now_of(handle, "nvmlDeviceGetCurrentClocksThrottleReasons", "event_reasons"))

    def nvmlDeviceGetClockInfo(self, handle: FakeGpu, kind: int) -> int:
        """MHz of the graphics (0), SM (1), memory (2) or video (3) clock."""
        return int(self._now_of(handle, "nvmlDeviceGetClockInfo", "memory_clock_mhz" if kind == 2 else "sm_clock_mhz"))

    def nvmlDeviceGetTemperature(self, handle: FakeGpu, sensor: int) -> int:
        return int(self._now_of(handle, "nvmlDeviceGetTemperature", "temperature_c"))

    def nvmlDeviceGetPowerManagementLimit(self, handle: FakeGpu) -> int:
        return int(1e3 * self._now_of(handle, "nvmlDeviceGetPowerManagementLimit", "power_limit_w"))

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: FakeGpu) -> int:
        return int(1e3 * self._now_of(handle, "nvmlDeviceGetEnforcedPowerLimit", "power_limit_w"))

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: FakeGpu) -> int:
        return round(self._of(handle, "nvmlDeviceGetPowerManagementDefaultLimit").default_power_limit_w * 1e3)

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: FakeGpu) -> list[int]:
        most = self._of(handle, "nvmlDeviceGetPowerManagementLimitConstraints").default_power_limit_w
        return [100_000, round(most * 1e3)]

    def nvmlDeviceGetUtilizationRates(self, handle: FakeGpu) -> Any:
        self._of(handle, "nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=100, memory=50)

    def nvmlDeviceGetComputeMode(self, handle: FakeGpu) -> int:
        self._of(handle, "nvmlDeviceGetComputeMode")
        return 0

    def nvmlDeviceGetPersistenceMode(self, handle: FakeGpu) -> int:
        self._of(handle, "nvmlDeviceGetPersistenceMode")
        return 1

    # beneath them

    def _spend(self) -> None:
        self.num_reads += 1
        if self._advance is not None and self._read_s:
            self._advance(self._read_s)

    def _of(self, handle: FakeGpu, function: str) -> FakeGpu:
        self._require_init()
        if handle.is_lost(self.now_s):
            raise self._error(_LOST)
        if function in handle.unsupported:
            raise self._error(_NOT_SUPPORTED)
        return handle

    def _now_of(self, handle: FakeGpu, function: str, name: str) -> Any:
        return value_at(getattr(self._of(handle, function), name), self.now_s)

    def _field(self, gpu: FakeGpu, number: int, scope: int) -> Any:
        read = {
            self._real.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION: ("ullVal", gpu.counter_mj, "TOTAL_ENERGY_CONSUMPTION"),
            self._real.NVML_FI_DEV_POWER_INSTANT: ("uiVal", gpu.instant_mw, "POWER_INSTANT"),
            self._real.NVML_FI_DEV_POWER_AVERAGE: ("uiVal", gpu.average_mw, "POWER_AVERAGE"),
        }.get(number)
        found = self._real.c_nvmlFieldValue_t(fieldId=number, scopeId=scope, nvmlReturn=_NOT_SUPPORTED)
        if read is not None and scope == 0 and f"NVML_FI_DEV_{read[2]}" not in gpu.unsupported:
            found.nvmlReturn, found.timestamp = 0, round(self.now_s * 1e6)
            found.valueType = getattr(self._real, "NVML_VALUE_TYPE_UNSIGNED_" + _TYPES[read[0]])
            setattr(found.value, read[0], read[1](self.now_s))
        return found

    def _require_init(self) -> None:
        if self.num_inits < 1:
            raise self._error(_UNINITIALIZED)

    def _error(self, value: int) -> Exception:
        error: Exception = self._real.NVMLError(value)
        return error


_TYPES = {"uiVal": "INT", "ullVal": "LONG_LONG"}


def _memory_of(name: str) -> dict[str, Any]:
    """What a module of codecarbon found when it looked for a GPU; nothing, if it hasn't looked yet."""
    module = sys.modules.get(name)
    if module is None:
        return {"pynvml": None, "PYNVML_AVAILABLE": False}
    return {key: getattr(module, key) for key in ("pynvml", "PYNVML_AVAILABLE", "is_nvidia_system")}


def _remember(name: str, memory: dict[str, Any]) -> None:
    module = sys.modules.get(name)
    if module is not None:
        vars(module).update(memory)
        if (detected := sys.modules.get("codecarbon.core.hardware_cache")) is not None:
            detected.clear_cache()


@lru_cache(maxsize=1)
def _yes() -> bool:
    """codecarbon's own answer has a cache, which it clears."""
    return True
