"""The three ways in which codecarbon comes to a number for the CPU, and what each takes to be trusted.

Ways that it has besides (Intel Power Gadget, powermetrics, the Raspberry's PMIC) sample the power for a moment after they
are asked, so that the number would be of another time than the window: those are refused.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Provenance, Window
from compressbench.core.units import JOULES_PER_KWH
from compressbench.meters.cpu_time import TICK_S, Moment
from compressbench.meters.energy_codecarbon import failed
from compressbench.records.idle_power import OF_THIS_PROCESS

NAME = "energy_j"
# codecarbon notices one wrap of a RAPL counter per window, and the small ones (65.5 kJ) wrap in 65 s at 1 kW
MAX_RAPL_WINDOW_S = 60.0
# a counter that was reset is booked as wrapped: up to tens of kilojoules out of nowhere. No package draws a kilowatt
MAX_PACKAGE_W, MAX_MACHINE_W = 1000.0, 5000.0
PROBE_EDGES, PROBE_LIMIT_S = 20, 0.5
_MADE_UP_S = 1000.0  # long, because codecarbon adds to it the time that it takes to ask it
_TWO_EDGES = 1 / math.sqrt(6)  # standard uncertainty in ticks: each edge anywhere within one (GUM 4.3.7)


class Span(NamedTuple):
    """A marked window. `joules` is what a counter gave at its end, or `trouble` why it gave nothing."""

    begin: Moment
    end: Moment
    joules: float | None = None
    trouble: str = ""

    @property
    def seconds(self) -> float:
        return self.end.monotonic_s - self.begin.monotonic_s

    @property
    def cpu_s(self) -> float:
        return self.end.own_cpu_s - self.begin.own_cpu_s


class Mode(Protocol):
    """`begin` and `end` are called at the marks and are as quick as they can be; `window` is called later."""

    provenance: Provenance

    def begin(self) -> None: ...

    def end(self, seconds: float) -> float | None: ...

    def window(self, span: Span, children_s: float) -> Window: ...


def mode_of(cpu: Any, now_s: Callable[[], float]) -> Mode:
    """How this CPU object of codecarbon's gets its number. Raises MeterError if that can't be trusted."""
    name = str(getattr(cpu, "_mode", type(cpu).__name__))
    source = f"codecarbon {version('codecarbon')}, mode {name}"
    if name == "cpu_load":
        return CpuTime(cpu, source)
    if name in ("intel_rapl", "windows_emi"):
        return Counter(cpu, source, now_s)
    if name == "constant":
        return Constant(cpu, source)
    raise MeterError(f"codecarbon's mode '{name}' samples the power after a window, not over it")


class CpuTime:
    """Watts per thread x CPU-seconds of this process."""

    def __init__(self, cpu: Any, source: str) -> None:
        self._watts = watts_per_thread(cpu)
        self.provenance = Provenance(
            kind="estimated",
            source=f"{source}, {cpu._tdp:g} W assumed for {cpu._cpu_count} busy threads whatever they execute, "
            "so it follows CPU time",
            boundary=f"cpu ({OF_THIS_PROCESS})",
            uncertainty_reason="peers found errors up to 40 % (arXiv:2509.22092)",
            tick_s=TICK_S,
        )

    def begin(self) -> None:
        pass

    def end(self, seconds: float) -> None:
        return None

    def window(self, span: Span, children_s: float) -> Window:
        ended_s = span.end.ended_children_cpu_s - span.begin.ended_children_cpu_s
        reason = ""
        if ended_s > _negligible_s(span):
            reason = f"child processes ended in the window, and their {ended_s:.3g} s of CPU time may be missing"
        elif children_s > _negligible_s(span):
            reason = f"child processes used {children_s:.3g} s of CPU time, and when can't be said"
        elif span.cpu_s < TICK_S:
            reason = f"below resolution: {span.cpu_s:.2g} s of CPU time in a window of {span.seconds:.3g} s"
        if reason:
            return Window(seconds=span.seconds, reason=reason)
        num_busy = max(1.0, span.cpu_s / span.seconds)
        uncertain_s = math.hypot(_TWO_EDGES * TICK_S * num_busy, ended_s, children_s)
        return _read(span.seconds, self._watts * span.cpu_s, self._watts * uncertain_s)


class Counter:
    """A hardware counter that codecarbon reads at both marks: 30 to 40 µs (p99 95 µs) for a RAPL tree of two packages."""

    def __init__(self, cpu: Any, source: str, now_s: Callable[[], float]) -> None:
        self._cpu, self._is_rapl = cpu, cpu._mode == "intel_rapl"
        self._tick_s = self._probe(now_s)
        self.provenance = Provenance(
            kind="measured",
            source=source,
            boundary="cpu package (whole machine)",
            uncertainty_reason="the counter is a model in the processor; average errors up to 73 % were found "
            "(Fahad 2019)",
            tick_s=self._tick_s,
        )

    def begin(self) -> None:
        try:
            self._cpu.start()
        except Exception as error:
            raise failed("starting a window", error) from error

    def end(self, seconds: float) -> float:
        joules = joules_of(self._cpu, seconds)
        if any(file.sample_skipped for file in self._files()):
            raise MeterError("a RAPL counter could not be read or went backwards, and codecarbon dropped the interval")
        return joules

    def window(self, span: Span, children_s: float) -> Window:
        joules, seconds, reason = span.joules, span.seconds, ""
        if joules is None:
            reason = span.trouble
        elif joules == 0:
            reason = f"below resolution: the counter gave 0 J for a window of {seconds:.3g} s"
        elif self._is_rapl and seconds > MAX_RAPL_WINDOW_S:
            reason = f"the RAPL counter may have wrapped more than once in a window of {seconds:.0f} s"
        elif joules > self._max_w() * seconds:
            reason = f"{joules:.0f} J in {seconds:.3g} s is implausible: the counter was probably reset"
        if reason or joules is None:
            return Window(seconds=seconds, reason=reason)
        return _read(seconds, joules, joules / seconds * self._tick_s * _TWO_EDGES)

    def _files(self) -> Sequence[Any]:
        """One per RAPL counter; codecarbon adds one when it finds that it isn't the mirror of another."""
        return getattr(getattr(self._cpu, "_intel_interface", None), "_rapl_files", ()) if self._is_rapl else ()

    def _max_w(self) -> float:
        return MAX_PACKAGE_W * len(self._files()) or MAX_MACHINE_W

    def _probe(self, now_s: Callable[[], float]) -> float:
        """The counter's tick: the median gap between its increments, in seconds."""
        self.begin()
        limit_s, edges = now_s() + PROBE_LIMIT_S, list[float]()
        while len(edges) < PROBE_EDGES and (now := now_s()) < limit_s:
            if joules_of(self._cpu, 0.001) > 0:
                edges.append(now)
        if len(edges) < 3:
            raise MeterError(
                "the counter that codecarbon reads is stuck", got=f"{len(edges)} increments in half a second"
            )
        return statistics.median(later - earlier for earlier, later in pairwise(edges))


class Constant:
    """Half of the processor's rated power, whatever it does: nothing is read."""

    def __init__(self, cpu: Any, source: str) -> None:
        self._cpu = cpu
        self.provenance = Provenance(
            kind="modelled",
            source=f"{source}, half of {cpu._tdp:g} W whatever the processor does",
            boundary="cpu (whole machine)",
            uncertainty_reason="no instrument is read: a constant times the duration",
        )

    def begin(self) -> None:
        pass

    def end(self, seconds: float) -> None:
        return None

    def window(self, span: Span, children_s: float) -> Window:
        joules = joules_of(self._cpu, span.seconds)
        if joules == 0:
            return Window(seconds=span.seconds, reason="codecarbon assumes 0 W for this processor")
        return _read(span.seconds, joules, 0.0)


def joules_of(hardware: Any, seconds: float) -> float:
    """What codecarbon gives for the time since it was last asked. Raises MeterError if that is no number of joules."""
    try:
        joules = float(hardware.measure_power_and_energy(seconds)[1].kWh) * JOULES_PER_KWH
    except Exception as error:
        raise failed("reading a window", error) from error
    if not math.isfinite(joules) or joules < 0:
        raise MeterError("codecarbon gave an impossible energy", got=f"{joules:g} J")
    return joules


def watts_per_thread(cpu: Any) -> float:
    """The rate at which codecarbon charges CPU time, in joules per CPU-second.

    Raises MeterError if it isn't what it gives for made-up CPU times, half a thread's and three threads' worth.
    """
    try:
        watts = float(cpu._tdp) / int(cpu._cpu_count)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise failed("asking for its watts", error) from error
    for num_busy in (0.5, 3.0):
        asked, expected = _asked(cpu, num_busy), watts * num_busy * _MADE_UP_S
        if not math.isclose(asked, expected, rel_tol=0.01):
            raise MeterError(
                "codecarbon's estimate is not watts per thread x CPU-seconds",
                got=f"{asked:.6g} J where {expected:.6g} J were expected",
                do="Use a version of codecarbon that compressbench was tested with (3.3.2).",
            )
    return watts


def _asked(cpu: Any, num_busy: float) -> float:
    """codecarbon's joules for `num_busy` threads that compute for the made-up time."""
    asked = copy.copy(cpu)
    asked._get_process_cpu_times = lambda: {0: num_busy * _MADE_UP_S}
    asked._last_cpu_times, asked._power_history, asked._last_sample_time = {0: 0.0}, [], None
    asked._last_measurement_time = time.time() - _MADE_UP_S
    return joules_of(asked, _MADE_UP_S)


def _negligible_s(span: Span) -> float:
    """CPU seconds that may be missing: two ticks of 10 ms, and a percent."""
    return 2 * TICK_S + 0.01 * span.cpu_s


def _read(seconds: float, joules: float, uncertainty_j: float) -> Window:
    return Window(seconds=seconds, values={NAME: joules}, uncertainties={NAME: uncertainty_j})
