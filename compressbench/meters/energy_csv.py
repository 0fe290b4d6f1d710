"""`energy-csv`: energy from the log of an external analyser or PDU that is written while we measure.

A window is noted on the settable clock (UTC) and on the monotonic one. Its joules are read afterwards, when the log has
come so far: the integral of power samples (trapezoids), or the difference of an energy counter. What a sample's place
within its period and the two clocks leave open counts as much as the power differs around the window's ends.
"""

from __future__ import annotations

import re
import statistics
import time
from array import array
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Clock, Instrument, Provenance, Window
from compressbench.core.spec import Spec
from compressbench.meters.logged_energy import Samples, energy, why_void
from compressbench.meters.power_log import Columns, PowerLog, TimeFormat

MIN_SAMPLES = 3
PERIODS_PER_WINDOW = 10
NUM_RECENT = 1001
MIN_CLOCK_STEP_S = 0.005
MLPERF_LIMIT = 0.01

_WATTS = {"uW": 1e-6, "mW": 1e-3, "W": 1.0, "kW": 1e3}
_JOULES = {"mJ": 1e-3, "J": 1.0, "kJ": 1e3, "Wh": 3600.0, "kWh": 3.6e6}
_SUFFIX = re.compile(r"[\s_\[(](uw|mw|w|kw|mj|j|kj|wh|kwh)[\])]?$", re.IGNORECASE)
Unit = Literal["uW", "mW", "W", "kW", "mJ", "J", "kJ", "Wh", "kWh"]


class EnergyCsv(Spec):
    """Energy of blocks of calls from a CSV file to which an external meter appends one row per sample.

    PTDaemon's log (MLPerf, SPECpower) needs `time_format: ptdaemon`; its times are local, so that `clock_offset_s` has
    to contain the offset of that zone from UTC.
    """

    scope: ClassVar[str] = "block"

    path: str = Field(min_length=1, description="the log; it has to grow while we measure")
    boundary: str = Field(min_length=1, description="what the meter measures, e.g. wall")
    source: str = Field(min_length=1, description="which meter it is, e.g. Yokogawa WT310 by PTDaemon 1.9")
    relative_uncertainty: float = Field(
        gt=0, lt=1, description="standard uncertainty of the meter (MLPerf: at most 0.01)"
    )
    power_column: str | None = Field(None, description="the column of power; PTDaemon: Watts")
    energy_column: str | None = Field(None, description="or that of an energy counter")
    unit: Unit | None = Field(None, description="of that column; left out, W or J")
    time_column: str = Field("time", description="PTDaemon: Time")
    time_format: TimeFormat = "iso8601"
    delimiter: Literal[",", ";", "\t"] = ","
    clock_offset_s: float = Field(0.0, description="by how much the log's clock is ahead of UTC")
    clock_uncertainty_s: float = Field(0.1, ge=0, description="standard uncertainty of that")
    max_w: float = Field(1e5, gt=0, description="more than the device can draw: a sample or step beyond it is an error")
    max_wait_s: float = Field(15.0, ge=0, le=600, description="how long to wait for the log to come to a window's end")
    name: Literal["energy_j", "wall_energy_j"] = Field(
        "energy_j", description="the value's name; wall_energy_j beside another energy meter"
    )

    @model_validator(mode="after")
    def _has_one_column_in_its_unit(self) -> Self:
        if (self.power_column is None) == (self.energy_column is None):
            raise ValueError("give either power_column or energy_column")
        if self.unit_name not in (_WATTS if self.is_power else _JOULES):
            raise ValueError(f"'{self.unit_name}' is no unit of {'power' if self.is_power else 'energy'}")
        written = _SUFFIX.search(self.value_column)
        if written and written[1].lower() != self.unit_name.lower():
            raise ValueError(f"the column '{self.value_column}' is not in {self.unit_name} by its name: give its unit")
        return self

    @property
    def is_power(self) -> bool:
        return self.power_column is not None

    @property
    def value_column(self) -> str:
        return self.power_column or self.energy_column or ""

    @property
    def unit_name(self) -> str:
        return self.unit or ("W" if self.is_power else "J")

    def open(self, device: str) -> Instrument:
        """Waits until the log has three samples. Raises MeterError if it can't be read, or hasn't after `max_wait_s`."""
        return CsvEnergy(self)


class Clocks(NamedTuple):
    """Two clocks in nanoseconds, one that can be set (UTC) and one that can't, and sleep."""

    wall: Clock = time.time_ns
    monotonic: Clock = time.perf_counter_ns
    sleep: Callable[[float], None] = time.sleep


class Moment(NamedTuple):
    wall_s: float
    monotonic_s: float

    @property
    def offset_s(self) -> float:
        return self.wall_s - self.monotonic_s


class CsvEnergy:
    """Joules of an external meter in windows of time, from its log."""

    def __init__(self, given: EnergyCsv, clocks: Clocks | None = None) -> None:
        """Raises MeterError: see `EnergyCsv.open`."""
        self._given, self._clocks = given, clocks or Clocks()
        columns = Columns(given.time_column, given.value_column, given.time_format, given.delimiter)
        self._log = PowerLog(Path(given.path), columns, given.clock_offset_s, lambda: self._now().wall_s)
        self._factor = (_WATTS if given.is_power else _JOULES)[given.unit_name]
        self._begin: Moment | None = None
        self._windows: list[tuple[Moment, Moment]] = []
        self._wait_until(lambda: len(self._log.times) >= MIN_SAMPLES)
        if len(self._log.times) < MIN_SAMPLES:
            got = f"{len(self._log.times)} samples{self._last_fault()}"
            raise MeterError("the power log has no samples", where=given.path, got=got, do="Start the meter's logging.")
        self.period_s = self._period_s()
        self.min_window_s = max(PERIODS_PER_WINDOW * self.period_s, PERIODS_PER_WINDOW * given.clock_uncertainty_s)

    @property
    def provenances(self) -> Mapping[str, Provenance]:
        given = self._given
        notes = [f"clock of the log: {given.clock_offset_s:g} ± {given.clock_uncertainty_s:g} s ahead"]
        if given.relative_uncertainty > MLPERF_LIMIT:
            notes.append("less certain than the 1 % that MLPerf asks for")
        how = Provenance(
            kind="measured",
            source=f"external: {given.source}",
            boundary=given.boundary,
            relative_uncertainty=given.relative_uncertainty,
            tick_s=self.period_s,
            notes=tuple(notes),
        )
        return {given.name: how}

    def start(self) -> None:
        if self._begin is not None:
            raise MeterError("this energy meter was started twice", do="Call stop() first.")
        self._begin = self._now()

    def stop(self) -> None:
        end = self._now()
        begin, self._begin = self._begin, None
        if begin is None:
            raise MeterError("this energy meter was stopped before it was started", do="Call start() first.")
        self._windows.append((begin, end))

    def collect(self) -> list[Window]:
        """Waits, at most `max_wait_s`, until the log has come to the last window's end. Raises MeterError if it is gone."""
        windows, self._windows = self._windows, []
        if not windows:
            return []
        # what comes right after the window says how much its end matters
        covered_s = windows[-1][1].wall_s + self._samples().reach_s
        self._wait_until(lambda: self._log.times[-1] >= covered_s)
        self.period_s = self._period_s()
        samples, offset_s = self._samples(), self._now().offset_s
        return [self._window(samples, *window, offset_s) for window in windows]

    def close(self) -> None:
        """Nothing is held open."""

    def _now(self) -> Moment:
        """Both clocks at one moment: of three tries the one with the least time between."""
        return min((self._read_clocks() for _ in range(3)), key=lambda tried: tried[0])[1]

    def _read_clocks(self) -> tuple[int, Moment]:
        before_ns, wall_ns, after_ns = self._clocks.monotonic(), self._clocks.wall(), self._clocks.monotonic()
        return after_ns - before_ns, Moment(wall_ns * 1e-9, (before_ns + after_ns) * 0.5e-9)

    def _window(self, samples: Samples, begin: Moment, end: Moment, offset_s: float) -> Window:
        """`offset_s` is that of the clocks now: a clock that was set since then was wrong, in the window or before."""
        given, seconds = self._given, end.monotonic_s - begin.monotonic_s
        stepped_s = max((offset_s - moment.offset_s for moment in (begin, end)), key=abs)
        if abs(stepped_s) > max(given.clock_uncertainty_s, MIN_CLOCK_STEP_S):
            return Window(
                seconds=seconds, reason=f"the wall clock was set by {stepped_s:.3g} s in the window or after it"
            )
        ends = (begin.wall_s, begin.wall_s + seconds)
        if reason := why_void(samples, *ends):
            return Window(seconds=seconds, reason=reason)
        joules, uncertainty_j = energy(samples, *ends)
        if joules <= 0:
            return Window(seconds=seconds, reason=f"below_resolution: {joules:g} J in {seconds:.3g} s")
        return Window(seconds=seconds, values={given.name: joules}, uncertainties={given.name: uncertainty_j})

    def _samples(self) -> Samples:
        log, given = self._log, self._given
        values = array("d", (value * self._factor for value in log.values))
        resolution = log.resolution * self._factor
        return Samples(
            times=log.times,
            values=values,
            is_counter=not given.is_power,
            faults=log.faults,
            period_s=self.period_s,
            resolution=resolution,
            clock_uncertainty_s=given.clock_uncertainty_s,
            max_w=given.max_w,
        )

    def _wait_until(self, is_done: Callable[[], bool]) -> None:
        begun_s = self._now().monotonic_s
        self._log.refresh()
        while not is_done() and self._now().monotonic_s - begun_s < self._given.max_wait_s:
            self._clocks.sleep(0.1)
            self._log.refresh()

    def _period_s(self) -> float:
        return statistics.median(later - earlier for earlier, later in pairwise(self._log.times[-NUM_RECENT:]))

    def _last_fault(self) -> str:
        return f"; its last bad row: {self._log.faults[-1][1]}" if self._log.faults else ""
