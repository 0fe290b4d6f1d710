"""Energy of an NVIDIA GPU from the total energy counter of NVML (millijoules since the driver was loaded).

The counter moves in ticks of 20 to 100 ms. A window therefore begins at an edge of the counter, and at its end the next
edge is awaited, so that both are known in time. The work after the last edge within the window, under a tick of it,
is charged at the window's mean power. Without that, a window of one second reads up to a tick, 10 %, too little.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Clock, Provenance

GAIN_UNCERTAINTY = 0.05
PROBE_EDGES = 6
PROBE_LIMIT_S = 3.0
STUCK_TICKS = 5
MIN_TICKS = 10
POLL_S = 0.001
_J_PER_MJ = 1e-3


class NvmlEnergy:
    """Joules of one whole GPU (`energy_j`) in a window. Windows should last `min_window_s` or longer.

    Finding the counter's tick takes up to 3 s when opened; each window waits up to 5 ticks at its start and at its end.
    `notes` says what to know about the numbers, e.g. that other processes compute on this GPU.
    """

    def __init__(
        self,
        device: int | str,
        *,
        nvml: Any = None,
        clock: Clock = time.perf_counter_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`device` is an index in NVML's order, which CUDA_VISIBLE_DEVICES doesn't change, or a UUID ("GPU-...").

        Raises MeterError if the counter can't be read, doesn't move, or covers more than the device (MIG).
        """
        self._nvml = nvml if nvml is not None else _import_nvml()
        self._clock, self._sleep = clock, sleep
        self._begin: tuple[float, int] | None = None
        self._call("nvmlInit")
        try:
            self._handle = self._find(device)
            self._refuse_mig()
            self.notes = self._shared_with()
            self.tick_s = self._probe()
        except MeterError:
            self._call("nvmlShutdown")
            raise
        self.min_window_s = max(1.0, MIN_TICKS * self.tick_s)
        self.provenance = self._make_provenance()

    def start(self) -> None:
        """Return at the counter's next edge. Raises MeterError if it doesn't move within 5 ticks."""
        self._begin = self._next_edge(self._read())

    def stop(self) -> dict[str, float]:
        """{"energy_j": joules since `start`}, after the counter's next edge.

        Raises MeterError if the counter stood still, went backwards, or can't be read, or the window was under a tick.
        """
        if self._begin is None:
            raise MeterError("this energy meter was stopped before it was started", do="Call start() first.")
        (begin_s, begin_mj), self._begin = self._begin, None
        end_s, end_mj = self._now_s(), self._read()
        if end_mj < begin_mj:
            raise MeterError("the NVML energy counter went backwards", got=f"{begin_mj} then {end_mj} mJ")
        if end_mj == begin_mj and end_s - begin_s > MIN_TICKS * self.tick_s:
            raise self._stuck(f"0 J in a window of {end_s - begin_s:.3g} s")
        next_edge_s, _ = self._next_edge(end_mj)
        covered_s = next_edge_s - self.tick_s - begin_s
        if end_mj == begin_mj or covered_s < self.tick_s / 2:
            message = f"the window is shorter than a tick of the NVML energy counter ({self.tick_s * 1e3:.0f} ms)"
            raise MeterError(message, do=f"Measure {self.min_window_s:g} s or longer.")
        return {"energy_j": (end_mj - begin_mj) * _J_PER_MJ * (end_s - begin_s) / covered_s}

    def close(self) -> None:
        self._begin = None
        self._call("nvmlShutdown")

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, name)(*arguments)
        except self._nvml.NVMLError as error:
            raise MeterError(f"NVML failed in {name}", got=str(error), do="Look at nvidia-smi.") from error

    def _find(self, device: int | str) -> Any:
        by = "nvmlDeviceGetHandleByIndex" if isinstance(device, int) else "nvmlDeviceGetHandleByUUID"
        return self._call(by, device)

    def _refuse_mig(self) -> None:
        try:
            current = self._nvml.nvmlDeviceGetMigMode(self._handle)[0]
        except self._nvml.NVMLError:
            return  # most GPUs have no such mode, and say so with an error
        if current == self._nvml.NVML_DEVICE_MIG_ENABLE:
            raise MeterError("MIG mode is enabled: the energy counter covers all instances of the GPU, not this one")

    def _shared_with(self) -> list[str]:
        try:
            count = len(self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        except self._nvml.NVMLError:
            return ["whether other processes compute on this GPU can't be read"]
        return [f"{count} processes compute on this GPU; their energy is in the readings"] if count > 1 else []

    def _probe(self) -> float:
        """The counter's tick: the median gap between its increments, in seconds."""
        deadline_s, edges, last = self._now_s() + PROBE_LIMIT_S, list[float](), self._read()
        while len(edges) < PROBE_EDGES and self._now_s() < deadline_s:
            edge = self._edge_before(deadline_s, last)
            if edge is None:
                break
            edges.append(edge[0])
            last = edge[1]
        if len(edges) < 3:
            raise self._stuck(f"{len(edges)} increments in {PROBE_LIMIT_S:g} s")
        return statistics.median(later - earlier for earlier, later in pairwise(edges))

    def _next_edge(self, last: int) -> tuple[float, int]:
        edge = self._edge_before(self._now_s() + STUCK_TICKS * self.tick_s, last)
        if edge is None:
            raise self._stuck(f"no increment in {STUCK_TICKS} ticks of {self.tick_s * 1e3:.0f} ms")
        return edge

    def _edge_before(self, deadline_s: float, last: int) -> tuple[float, int] | None:
        while (now_s := self._now_s()) < deadline_s:
            value = self._read()
            if value < last:
                raise MeterError("the NVML energy counter went backwards", got=f"{last} then {value} mJ")
            if value > last:
                return now_s, value
            self._sleep(POLL_S)
        return None

    def _read(self) -> int:
        value = self._call("nvmlDeviceGetTotalEnergyConsumption", self._handle)
        if not isinstance(value, int) or value < 0:
            raise MeterError("the NVML energy counter gave something else than millijoules", got=repr(value))
        return value

    def _now_s(self) -> float:
        return self._clock() * 1e-9

    def _stuck(self, got: str) -> MeterError:
        return MeterError("the NVML energy counter is stuck", got=got, do="Look at nvidia-smi, or reload the driver.")

    def _make_provenance(self) -> Provenance:
        # half a tick: the last partial tick is charged at the mean power, and real power may differ by half of it
        edge = 0.5 * self.tick_s / self.min_window_s
        return Provenance(
            kind="measured",
            source=f"NVML total energy counter, tick {self.tick_s * 1e3:.0f} ms",
            boundary="device",
            relative_uncertainty=math.hypot(edge, GAIN_UNCERTAINTY),
        )


def _import_nvml() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise MeterError("pynvml can't be imported", got=str(error), do="pip install nvidia-ml-py") from error
    return pynvml
