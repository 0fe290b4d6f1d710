"""The most memory that work takes above what was held before, as the operating system or the CUDA allocator counts it."""

from __future__ import annotations

from pathlib import Path

from compressbench.core.errors import MeterError
from compressbench.core.reading import Reading

NAME = "compress_peak_memory_bytes"
_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class PeakMemory:
    """`start` before the work, `stop` after it. On CPU the kernel's own high-water mark of this process, which is reset
    first: nothing is sampled and nothing is missed, but memory that was freed before and is used again isn't seen.
    """

    def __init__(self, device: str) -> None:
        self._device, self._before = device, 0

    def start(self) -> None:
        """Raises MeterError where this system has no such mark, or doesn't let it be reset."""
        if self._device.startswith("cuda"):
            import torch

            if not torch.cuda.is_available():
                raise MeterError("torch sees no CUDA device", got=self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
            return
        try:
            _CLEAR_REFS.write_text(_RESET_PEAK)
            self._before = _from_status("VmRSS")
        except OSError as error:
            raise MeterError("the peak of this process's memory can't be reset", got=str(error)) from error

    def stop(self) -> Reading:
        if self._device.startswith("cuda"):
            import torch

            peak, source = torch.cuda.max_memory_allocated(self._device), "PyTorch CUDA allocator"
        else:
            peak, source = _from_status("VmHWM"), "high-water mark of the process (VmHWM), reset before"
        return Reading(
            name=NAME,
            value=float(max(0, peak - self._before)),
            kind="measured",
            source=source,
            boundary="above what was held when the first step began",
            uncertainty_reason="done once; the operating system counts pages in batches of up to a megabyte",
        )


def _from_status(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise MeterError(f"{_STATUS} has no {name}")
