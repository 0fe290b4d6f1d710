"""One NVIDIA GPU in NVML, found so that it is the one that is computed on, and not a part of one."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Provenance

# of a whole board, as peers found for NVML's sensors; it cancels in ratios on one device
GAIN_UNCERTAINTY = 0.05
_FALLBACK_MAX_W = 5000.0


class NvmlDevice:
    """NVML, opened, with the handle of one GPU. Every call raises MeterError with NVML's own words if it fails."""

    def __init__(self, device: int | str, nvml: Any = None) -> None:
        """`device` is a UUID ("GPU-..."), or an index in NVML's order, which CUDA_VISIBLE_DEVICES doesn't change.

        Raises MeterError if there is no NVML, no such GPU, or if it is in MIG mode.
        """
        self._nvml = nvml if nvml is not None else _import_nvml()
        self.call("nvmlInit")
        try:
            by = "nvmlDeviceGetHandleByIndex" if isinstance(device, int) else "nvmlDeviceGetHandleByUUID"
            self._handle = self.call(by, device)
            self._refuse_mig()
        except MeterError:
            self.close()
            raise

    def call(self, name: str, *arguments: Any) -> Any:
        """A function of NVML that isn't about a device."""
        function = getattr(self._nvml, name, None)
        if function is None:
            raise MeterError(f"this pynvml has no {name}", do="pip install --upgrade nvidia-ml-py")
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            raise MeterError(f"NVML failed in {name}", got=str(error), do="Look at nvidia-smi.") from error

    def read(self, name: str, *arguments: Any) -> Any:
        """A function of NVML about this device."""
        return self.call(name, self._handle, *arguments)

    def field(self, name: str) -> int:
        """The value of a field (a constant of pynvml: NVML_FI_DEV_...) that is a whole number. Raises MeterError."""
        number = getattr(self._nvml, name, None)
        if number is None:
            raise MeterError(f"this pynvml has no {name}", do="pip install --upgrade nvidia-ml-py")
        (found,) = self.read("nvmlDeviceGetFieldValues", [number])
        if found.nvmlReturn != self._nvml.NVML_SUCCESS:
            error = self._nvml.NVMLError(found.nvmlReturn)
            raise MeterError(f"NVML has no {name} of this GPU", got=str(error), do="Look at nvidia-smi.")
        is_long = found.valueType == self._nvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
        return int(found.value.ullVal if is_long else found.value.uiVal)

    def max_w(self) -> float:
        """More than the GPU can draw on average over one of the counter's ticks: twice its highest power limit."""
        try:
            return 2e-3 * float(self.read("nvmlDeviceGetPowerManagementLimitConstraints")[1])
        except MeterError:
            return _FALLBACK_MAX_W

    def is_averaging(self) -> bool:
        """Whether nvmlDeviceGetPowerUsage may be an average over 1 s: from Ampere (7) on, says NVML's documentation.

        GA100 is an exception there, but has no number of its own; of it the first second of a window is lost, too.
        """
        try:
            return int(self.read("nvmlDeviceGetArchitecture")) >= int(self._nvml.NVML_DEVICE_ARCH_AMPERE)
        except MeterError:
            return True

    def shared_with(self) -> tuple[str, ...]:
        """A sentence about other processes that compute on this GPU, whose energy would be in the numbers; or none."""
        try:
            pids = [process.pid for process in self.read("nvmlDeviceGetComputeRunningProcesses")]
        except MeterError as error:
            return (f"whether other processes compute on this GPU can't be read: {error}",)
        others = [pid for pid in pids if pid != os.getpid()]
        if not others:
            return ()
        whose = "" if len(others) < len(pids) else " (one may be this process, seen from outside its container)"
        return (f"shared device: {len(others)} other processes{whose} compute on this GPU, their energy is included",)

    def close(self) -> None:
        """Let go of NVML; that a lost GPU fails here too is of no interest to anybody."""
        with suppress(MeterError):
            self.call("nvmlShutdown")

    def _refuse_mig(self) -> None:
        try:
            current = self._nvml.nvmlDeviceGetMigMode(self._handle)[0]
        except self._nvml.NVMLError:
            return  # most GPUs have no such mode, and say so with an error
        if current == self._nvml.NVML_DEVICE_MIG_ENABLE:
            raise MeterError(
                "MIG mode is enabled: NVML's energy is that of all instances of the GPU, not of this one",
                do="Disable MIG, or measure without energy.",
            )


def cuda_uuid(device: str) -> str:
    """NVML's name of a CUDA device ("cuda", "cuda:1"); their numbers differ under CUDA_VISIBLE_DEVICES.

    Raises MeterError if torch or the device is missing.
    """
    if device.partition(":")[0] != "cuda":
        raise MeterError("NVML reads NVIDIA GPUs", got=f"the device '{device}'", do="Use the meter 'energy'.")
    try:
        import torch

        return f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    except ImportError as error:
        raise MeterError("torch, which knows the CUDA devices, can't be imported", got=str(error)) from error
    except (RuntimeError, AssertionError, ValueError) as error:
        raise MeterError(f"CUDA has no device '{device}'", got=str(error)) from error


def measured(source: str, tick_s: float, notes: tuple[str, ...]) -> Provenance:
    """How joules of a whole board came about that NVML read."""
    return Provenance(
        kind="measured",
        source=source,
        boundary="device",
        relative_uncertainty=GAIN_UNCERTAINTY,
        tick_s=tick_s,
        notes=notes,
    )


def _import_nvml() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise MeterError("pynvml can't be imported", got=str(error), do="pip install nvidia-ml-py") from error
    return pynvml
