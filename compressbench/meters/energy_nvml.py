"""`energy-nvml`: energy of an NVIDIA GPU from NVML's total energy counter (millijoules since the driver was loaded).

The counter moves in ticks of 20 to 100 ms. Its edges are logged beside the run, and windows are read from them
(`edge_energy`): unaligned, a window of one second would be off by up to a tick, 10 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument, Provenance, Window
from compressbench.core.spec import Spec
from compressbench.meters.edge_energy import EdgeWindows, min_window_s
from compressbench.meters.edges import REAL_TIME, EdgeSampler, Timing
from compressbench.meters.nvml_device import NvmlDevice, cuda_uuid, measured
from compressbench.meters.probe import is_slow_to_read, slow_reading

PROBE_EDGES = 20
PROBE_LIMIT_S = 5.0
_J_PER_MJ = 1e-3


class EnergyNvml(Spec):
    """Joules of blocks of calls on an NVIDIA GPU, from its energy counter; no other instrument takes its place."""

    scope: ClassVar[str] = "block"

    def open(self, device: str) -> Instrument:
        """Raises MeterError if `device` isn't an NVIDIA GPU ("cuda", "cuda:1") whose counter can be read."""
        return NvmlEnergy(cuda_uuid(device))


class NvmlEnergy:
    """Joules of one whole GPU (`energy_j`) in windows that should last `min_window_s` or longer.

    Opening probes the counter's tick until it has moved 20 times (2 s at 100 ms, at most 5 s), and starts a thread that
    reads the counter a few times per tick. Where one reading takes long it delays what is launched meanwhile (3 ms on an
    H200): then the meter `wants_lead`, and the counter is read only for windows, and not in those that have one.
    """

    def __init__(self, device: int | str, *, nvml: Any = None, timing: Timing = REAL_TIME) -> None:
        """`device` is a UUID ("GPU-...") or an index in NVML's order. `nvml` stands in for pynvml.

        Raises MeterError if the counter can't be read, doesn't move, or covers more than the device (MIG).
        """
        self._device = NvmlDevice(device, nvml)
        try:
            sampler = EdgeSampler(
                self._joules,
                name="the NVML energy counter",
                resolution_j=_J_PER_MJ,
                max_w=self._device.max_w(),
                timing=timing,
            )
            self.probe = sampler.probe(PROBE_EDGES, PROBE_LIMIT_S)
        except MeterError:
            self._device.close()
            raise
        self.min_window_s = min_window_s(self.probe.tick_s)
        self.wants_lead = is_slow_to_read(self.probe)
        notes = self._device.shared_with() + slow_reading(self.probe)
        how = measured("NVML total energy counter", self.probe.tick_s, notes)
        self.provenances: Mapping[str, Provenance] = {"energy_j": how}
        self._sampler, self._windows = sampler, EdgeWindows(sampler, rests=self.wants_lead)
        sampler.start()

    def lead(self, *, before: bool) -> Callable[[], bool]:
        """Look for the counter's next increment, before a window that is to be quiet or after one: whether it came.

        Raises MeterError after `close`.
        """
        return self._windows.lead(before=before)

    def start(self) -> None:
        """Mark the beginning of a window. Raises MeterError if one is open, or after `close`."""
        self._windows.start()

    def stop(self) -> None:
        """Mark its end. Raises MeterError if none is open."""
        self._windows.stop()

    def collect(self) -> list[Window]:
        """The windows since the last call, void with a reason if the counter was lost, stuck, reset, or too slow.

        Waits until the counter has been read after the end of the last one, a tick or two.
        """
        return self._windows.collect()

    def series(self, begin_ns: int, end_ns: int) -> list[tuple[int, float]]:
        """When the counter moved, and to how many joules."""
        return self._windows.series(begin_ns, end_ns)

    def close(self) -> None:
        """End the thread and let go of NVML. A second call does nothing."""
        if self._sampler.is_running:
            self._sampler.close()
            self._device.close()

    def _joules(self) -> float:
        value = self._device.read("nvmlDeviceGetTotalEnergyConsumption")
        if not isinstance(value, int) or value < 0:
            raise MeterError("the NVML energy counter gave something else than millijoules", got=repr(value))
        return value * _J_PER_MJ
