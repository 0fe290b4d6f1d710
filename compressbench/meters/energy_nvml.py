"""`energy-nvml`: energy of an NVIDIA GPU from NVML's total energy counter (millijoules since the driver was loaded).

The counter moves in ticks of 20 to 100 ms. Its edges are logged beside the run, and windows are read from them
(`edge_energy`): unaligned, a window of one second would be off by up to a tick, 10 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument, Provenance
from compressbench.core.spec import Spec
from compressbench.meters.counted import Counted
from compressbench.meters.edges import REAL_TIME, EdgeSampler, Timing
from compressbench.meters.nvml_device import NvmlDevice, cuda_uuid, measured
from compressbench.meters.probe import slow_reading

PROBE_EDGES = 20
PROBE_LIMIT_S = 5.0
_J_PER_MJ = 1e-3


class EnergyNvml(Spec):
    """Joules of blocks of calls on an NVIDIA GPU, from its energy counter; no other instrument takes its place."""

    scope: ClassVar[str] = "block"

    def open(self, device: str) -> Instrument:
        """Raises MeterError if `device` isn't an NVIDIA GPU ("cuda", "cuda:1") whose counter can be read."""
        return NvmlEnergy(cuda_uuid(device))


class NvmlEnergy(Counted):
    """Joules of one whole GPU (`energy_j`) in windows that should last `min_window_s` or longer.

    Opening probes the counter's tick until it has moved 20 times (2 s at 100 ms, at most 5 s), and starts a thread that
    reads the counter a few times per tick.
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
        notes = self._device.shared_with() + slow_reading(self.probe)
        how = measured("NVML total energy counter", self.probe.tick_s, notes)
        self.provenances: Mapping[str, Provenance] = {"energy_j": how}
        super().__init__(sampler, self.probe)

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
