"""CPU energy through codecarbon: a hardware counter where one can be read, else watts x CPU-seconds of this process.

codecarbon's tasks (`start_task`/`stop_task`) are not used. They do their own bookkeeping inside the window (+9 % at
50 ms of work on one thread, +2 % at 200 ms, +0.8 % at 500 ms) and run a thread that walks all processes every second,
while latency is being timed. The hardware object behind them is asked directly; a contract test pins its names. The
estimate advances in ticks of 10 ms of CPU time, so windows should last half a second or longer.

Not seen: the CPU time of a child process before codecarbon's first look at it. A child that ended voids the window.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Provenance
from compressbench.core.units import JOULES_PER_KWH
from compressbench.meters.energy_codecarbon import failed, find_hardware, make_tracker

COUNTER_MODES = frozenset({"intel_rapl", "windows_emi"})
MIN_WINDOW_S = 0.25
# codecarbon notices one wrap of a RAPL counter per window, and the small ones (65.5 kJ) wrap in 65 s at 1 kW
MAX_RAPL_WINDOW_S = 60.0
# a counter that was reset is booked as wrapped: tens of kilojoules out of nowhere
MAX_PLAUSIBLE_W = 5000.0
MAX_CLOCK_STEP = 0.01


@dataclass(frozen=True)
class Moment:
    """Seconds of: a monotonic clock, the settable system clock, this process's CPU, its ended children's CPU."""

    monotonic_s: float
    system_s: float
    own_cpu_s: float
    ended_children_cpu_s: float


def read_moment() -> Moment:
    times = os.times()
    # the system clock is read only because codecarbon divides by it
    return Moment(time.perf_counter(), time.time(), time.process_time(), times.children_user + times.children_system)


class EstimatedEnergy:
    """Joules of the CPU (`energy_j`) and, as a guess of its own kind, of the memory (`ram_energy_j`) in a window.

    `provenances` has the provenance of each raw name; `provenance` is that of `energy_j`. `notes` are the warnings that
    codecarbon gave. Opening takes about 2 s the first time in a process. Windows must not overlap.
    """

    min_window_s = MIN_WINDOW_S

    def __init__(self, tracker: Any = None, read: Callable[[], Moment] = read_moment) -> None:
        """`tracker` is a codecarbon tracker with detected hardware; left out, one is made.

        Raises MeterError if codecarbon is missing, fails, or finds no CPU.
        """
        self.notes: list[str] = []
        self._read = read
        self._begin: Moment | None = None
        tracker = tracker if tracker is not None else make_tracker(self.notes)
        self._cpu, self._ram = find_hardware(tracker)
        self.mode = str(getattr(self._cpu, "_mode", type(self._cpu).__name__))
        self.provenances = {"energy_j": self._cpu_provenance(), "ram_energy_j": _RAM_PROVENANCE}
        self.provenance = self.provenances["energy_j"]

    def _cpu_provenance(self) -> Provenance:
        source = f"codecarbon {version('codecarbon')}, mode {self.mode}"
        if self.mode in COUNTER_MODES:
            reason = "the counter is a model in the processor; average errors up to 73 % were found (Fahad 2019)"
            return Provenance(
                kind="measured", source=source, boundary="cpu package (whole machine)", uncertainty_reason=reason
            )
        watts, threads = getattr(self._cpu, "_tdp", "an unknown number of"), getattr(self._cpu, "_cpu_count", "all")
        source += f", {watts} W assumed for {threads} busy threads whatever they execute, so it follows CPU time"
        reason = "peers found errors up to 40 % (arXiv:2509.22092)"
        boundary = "cpu (this process)" if self.mode == "cpu_load" else "cpu (whole machine)"
        return Provenance(kind="estimated", source=source, boundary=boundary, uncertainty_reason=reason)

    def start(self) -> None:
        try:
            self._cpu.start()
        except Exception as error:
            raise failed("starting a window", error) from error
        self._begin = self._read()

    def stop(self) -> dict[str, float]:
        """Joules since `start`: {"energy_j": ..., "ram_energy_j": ...}, without the latter if codecarbon has none.

        Raises MeterError if codecarbon gave no positive number, or if something happened that makes it a wrong one.
        """
        if self._begin is None:
            raise MeterError("this energy meter was stopped before it was started", do="Call start() first.")
        begin, self._begin = self._begin, None
        end = self._read()
        duration_s = end.monotonic_s - begin.monotonic_s
        joules = self._joules_of(self._cpu, duration_s)
        self._check(joules, begin, end)
        values = {"energy_j": joules}
        ram_joules = self._joules_of(self._ram, duration_s) if self._ram is not None else 0.0
        if ram_joules > 0:
            values["ram_energy_j"] = ram_joules
        return values

    def close(self) -> None:
        """Forget an open window. Nothing else is held: no thread, no file."""
        self._begin = None

    def _joules_of(self, hardware: Any, duration_s: float) -> float:
        try:
            measured = hardware.measure_power_and_energy(duration_s)
            joules = float(measured[1].kWh) * JOULES_PER_KWH
        except Exception as error:
            raise failed("reading a window", error) from error
        if not math.isfinite(joules) or joules < 0:
            raise MeterError("codecarbon gave an impossible energy", got=f"{joules:g} J")
        return joules

    def _check(self, joules: float, begin: Moment, end: Moment) -> None:
        duration_s = end.monotonic_s - begin.monotonic_s
        trouble = self._counter_trouble(joules, duration_s) if self.mode in COUNTER_MODES else ""
        if self.mode == "cpu_load":
            trouble = _estimate_trouble(begin, end)
        if not trouble and joules == 0:
            cpu_s = end.own_cpu_s - begin.own_cpu_s
            trouble = f"codecarbon gave 0 J for a window of {duration_s:.3g} s with {cpu_s:.3g} s of CPU time"
        if trouble:
            raise MeterError(trouble, do=f"Repeat the window; it should last {MIN_WINDOW_S:g} s or longer.")

    def _counter_trouble(self, joules: float, duration_s: float) -> str:
        files = getattr(getattr(self._cpu, "_intel_interface", None), "_rapl_files", ())
        if any(file.sample_skipped for file in files):
            return "a RAPL counter could not be read or went backwards, and codecarbon dropped the interval"
        if self.mode == "intel_rapl" and duration_s > MAX_RAPL_WINDOW_S:
            return f"the RAPL counter may have wrapped more than once in a window of {duration_s:.0f} s"
        if joules > MAX_PLAUSIBLE_W * duration_s:
            return f"{joules:.0f} J in {duration_s:.3g} s is implausible: the counter was probably reset"
        return ""


def _estimate_trouble(begin: Moment, end: Moment) -> str:
    duration_s = end.monotonic_s - begin.monotonic_s
    stepped_s = end.system_s - begin.system_s - duration_s
    if abs(stepped_s) > MAX_CLOCK_STEP * max(duration_s, 0.1):
        return f"the system clock, which codecarbon divides by, was stepped by {stepped_s:.3g} s in the window"
    lost_s = end.ended_children_cpu_s - begin.ended_children_cpu_s
    if lost_s > 0.02 + 0.01 * (end.own_cpu_s - begin.own_cpu_s):
        return f"child processes ended in the window, and their {lost_s:.3g} s of CPU time may be missing"
    return ""


_RAM_PROVENANCE = Provenance(
    kind="modelled",
    source="codecarbon's constant power per memory module, guessed from this process's memory",
    boundary="memory (this process)",
    uncertainty_reason="no instrument is read: a constant times the duration",
)
