"""What slowed a GPU down or shared it during a block, as NVML says: read around blocks, and 10 times a second inside.

Reading is all that is done: no clock and no limit is ever set.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from operator import or_
from typing import Any

from compressbench.core.errors import MeterError
from compressbench.measure.interference import GpuEvidence
from compressbench.meters.edges import Step, in_thread
from compressbench.records.evidence import THROTTLE_BITS

SAMPLE_S = 0.1
_CLOCK_SM, _CLOCK_MEMORY, _SENSOR_GPU = 1, 2, 0  # NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU
_MHZ = 1e6
_W_PER_MW = 1e-3
_NOT_LISTED = "NVML doesn't list this process, so that it may not list others either (container)"
_OTHER_NUMBER = "this process isn't listed under its own number (container): one of those listed was taken for it"
_TOGETHER: Mapping[str, Callable[[Sequence[Any]], float]] = {
    "gpu_sm_clock_hz": lambda values: sum(values) / len(values),
    "gpu_memory_clock_hz": lambda values: sum(values) / len(values),
    "gpu_throttle_reasons": lambda values: float(reduce(or_, values)),
    "gpu_temperature_c": max,
    "gpu_power_limit_w": min,
    "gpu_num_other_processes": max,
}
_Sample = dict[str, Any]


class GpuWatcher:
    """Watches one GPU; hand it to `Watcher(gpu=...)`. What can't be read is absent with its reason, never an error.

    `device` is an index in NVML's order or a UUID ("GPU-..."). `own_pids` are processes of ours besides this one. `nvml`
    stands in for the module pynvml. `background` calls a function until it's told to stop, and sleeps for as many
    seconds as that returns; None is without samples inside of blocks.
    """

    def __init__(
        self,
        device: int | str,
        *,
        nvml: Any = None,
        own_pids: Collection[int] = (),
        background: Callable[[Step], Callable[[], None]] | None = in_thread,
    ) -> None:
        self._own_pids = {os.getpid(), *own_pids}
        self._unread: dict[str, str] = {}
        self._rows: list[dict[str, float | None]] = []
        self._samples: list[_Sample] = []
        self._notes: dict[str, None] = {}
        self._is_in_block = False
        self._nvml: Any = None
        self._handle: Any = None
        self._end: Callable[[], None] | None = None
        try:
            self._nvml = nvml if nvml is not None else importlib.import_module("pynvml")
            self._open(device)
        except (ImportError, MeterError) as error:
            self._unread = dict.fromkeys(_TOGETHER, str(error))
            return
        if background is not None:
            self._end = background(self._step)

    def before(self) -> None:
        self._samples = []
        self._sample(self._samples)
        self._is_in_block = True

    def after(self) -> None:
        self._is_in_block = False
        samples = self._samples
        self._sample(samples)
        self._samples = []  # a sample of the thread that comes late is of neither block
        self._rows.append(_together(list(samples)))

    def evidence(self) -> GpuEvidence:
        """Of all blocks so far, in their order."""
        columns = {name: tuple(row.get(name) for row in self._rows) for name in _TOGETHER}
        read = {name: column for name, column in columns.items() if any(value is not None for value in column)}
        unread = {name: reason for name, reason in self._unread.items() if None in columns[name] or not columns[name]}
        return GpuEvidence(read, unread, tuple(self._notes))

    def close(self) -> None:
        """Let go of NVML; that a lost GPU fails here too is of no interest to anybody: what it said is known."""
        if self._end is not None:
            self._end()
        if self._handle is not None:
            self._handle = None
            self._shut_down()

    def _open(self, device: int | str) -> None:
        self._nvml_call("nvmlInit")
        by = "nvmlDeviceGetHandleByIndex" if isinstance(device, int) else "nvmlDeviceGetHandleByUUID"
        try:
            self._handle = self._nvml_call(by, device)
        except MeterError:
            self._shut_down()
            raise
        self._notes = dict.fromkeys(self._settings())

    def _shut_down(self) -> None:
        with suppress(MeterError):
            self._nvml_call("nvmlShutdown")

    def _step(self) -> float:
        samples = self._samples
        if self._is_in_block:
            self._sample(samples, is_inside=True)
        return SAMPLE_S

    def _sample(self, into: list[_Sample], *, is_inside: bool = False) -> None:
        """What never changes within a block, and what takes longer, is read around it only."""
        if self._handle is None:
            return
        sample = {
            "gpu_throttle_reasons": self._read("gpu_throttle_reasons", self._reasons),
            "gpu_sm_clock_hz": self._read("gpu_sm_clock_hz", lambda: self._clock_hz(_CLOCK_SM)),
            "gpu_memory_clock_hz": self._read("gpu_memory_clock_hz", lambda: self._clock_hz(_CLOCK_MEMORY)),
            "gpu_temperature_c": self._read("gpu_temperature_c", self._temperature_c),
        }
        if not is_inside:
            sample["gpu_power_limit_w"] = self._read("gpu_power_limit_w", self._power_limit_w)
            sample["gpu_num_other_processes"] = self._read("gpu_num_other_processes", self._num_other_processes)
        into.append(sample)

    def _read(self, name: str, read: Callable[[], float]) -> float | None:
        try:
            return read()
        except MeterError as error:
            self._unread[name] = str(error)
            return None

    def _nvml_call(self, name: str, *arguments: Any) -> Any:
        """Raises MeterError if NVML fails, or if this pynvml doesn't have the function."""
        function = getattr(self._nvml, name, None)
        if function is None:
            raise MeterError(f"this pynvml has no {name}", do="pip install -U nvidia-ml-py")
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            raise MeterError(f"NVML failed in {name}", got=str(error)) from error

    def _number(self, name: str, *arguments: Any) -> int:
        value = self._nvml_call(name, self._handle, *arguments)
        if not isinstance(value, int) or value < 0:
            raise MeterError(f"{name} gave something else than a number", got=repr(value))
        return value

    def _reasons(self) -> int:
        has_new_name = hasattr(self._nvml, "nvmlDeviceGetCurrentClocksEventReasons")
        return self._number(f"nvmlDeviceGetCurrentClocks{'Event' if has_new_name else 'Throttle'}Reasons")

    def _clock_hz(self, kind: int) -> float:
        return self._number("nvmlDeviceGetClockInfo", kind) * _MHZ

    def _temperature_c(self) -> float:
        return float(self._number("nvmlDeviceGetTemperature", _SENSOR_GPU))

    def _power_limit_w(self) -> float:
        return self._number("nvmlDeviceGetPowerManagementLimit") * _W_PER_MW

    def _num_other_processes(self) -> float:
        """Processes in another namespace have other numbers: then one of those listed is taken for this one."""
        pids = [process.pid for process in self._nvml_call("nvmlDeviceGetComputeRunningProcesses", self._handle)]
        if not pids:
            raise MeterError(_NOT_LISTED)
        if os.getpid() not in pids:
            self._notes[_OTHER_NUMBER] = None
            return float(max(0, len(pids) - len(self._own_pids)))
        return float(sum(pid not in self._own_pids for pid in pids))

    def _settings(self) -> list[str]:
        found = []
        for what, name in _SETTINGS.items():
            try:
                value = self._nvml_call(name, self._handle)
            except MeterError as error:
                found.append(f"{what}: unknown ({error.got or error.what})")
                continue
            current = value[0] if isinstance(value, (list, tuple)) else value
            found.append(f"{what}: {'on' if current else 'off'}")
        try:
            limit, default = self._power_limit_w(), self._number("nvmlDeviceGetPowerManagementDefaultLimit") * _W_PER_MW
            found.append(f"power limit: {limit:g} W, default {default:g} W")
        except MeterError as error:
            found.append(f"power limit: unknown ({error.got or error.what})")
        return found


_SETTINGS = {
    "ECC": "nvmlDeviceGetEccMode",
    "MIG": "nvmlDeviceGetMigMode",
    "persistence mode": "nvmlDeviceGetPersistenceMode",
}


def _together(samples: Sequence[_Sample]) -> dict[str, float | None]:
    """One value per column; None where a sample lacks it, because what was missed may have been the disturbance.

    A throttling that was seen stays seen.
    """
    row: dict[str, float | None] = {}
    for name, together in _TOGETHER.items():
        given = [sample[name] for sample in samples if name in sample]
        values = [value for value in given if value is not None]
        is_seen = name == "gpu_throttle_reasons" and bool(values and reduce(or_, values) & THROTTLE_BITS)
        row[name] = float(together(values)) if values and (len(values) == len(given) or is_seen) else None
    return row
