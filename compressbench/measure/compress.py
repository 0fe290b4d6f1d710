"""Applying the steps of a candidate, and what that cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from compressbench.core.errors import MeterError, UnsupportedError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Instrument
from compressbench.core.reading import Reading
from compressbench.core.registry import Resolved
from compressbench.measure import peak_memory
from compressbench.measure.instruments import energy_reading
from compressbench.measure.peak_memory import PeakMemory
from compressbench.records.record import AppliedStep


class Compressed(NamedTuple):
    handle: Any
    steps: tuple[AppliedStep, ...]
    readings: list[Reading]
    absent: dict[str, str]


def apply_steps(
    handle: Any, steps: Sequence[Resolved], instruments: Mapping[str, Instrument], progress: Progress
) -> Compressed:
    """Run the steps in order. Raises UnsupportedError if one can't handle the model or device it is given."""
    if not steps:
        return Compressed(handle, (), [], {})
    window = _Window(instruments, PeakMemory(handle.device))
    window.start()
    try:
        handle, applied = _apply(handle, steps, progress)
    finally:
        raw = window.stop()  # the next candidate starts the same instruments again
    energy = energy_reading("compress_energy_j", instruments, raw)
    readings = [_seconds(sum(step.seconds for step in applied)), *([energy] if energy else []), *window.memory]
    return Compressed(handle, tuple(applied), readings, window.absent)


def _apply(handle: Any, steps: Sequence[Resolved], progress: Progress) -> tuple[Any, list[AppliedStep]]:
    applied: list[AppliedStep] = []
    with progress.bar("compress", len(steps)) as bar:
        for step in steps:
            _check(step, handle)
            begun = time.perf_counter()
            handle = step.value.apply(handle)
            seconds = time.perf_counter() - begun
            applied.append(AppliedStep(use=step.name, options=step.options, seconds=seconds, notes=handle.notes))
            bar.advance()
    return handle, applied


def _check(step: Resolved, handle: Any) -> None:
    step.value.check_model(handle.config)
    facts, device = step.value.facts, handle.device.partition(":")[0]
    if device not in facts.devices:
        wanted = " or ".join(sorted(facts.devices))
        raise UnsupportedError(f"'{step.name}' needs {wanted}", got=device, do="Run it on such a machine.")


def _seconds(value: float) -> Reading:
    return Reading(
        name="compress_seconds",
        value=value,
        kind="measured",
        source="monotonic clock (perf_counter)",
        uncertainty_reason="done once",
    )


class _Window:
    """One window over all steps, on the instruments that can read it."""

    def __init__(self, instruments: Mapping[str, Instrument], peak: PeakMemory) -> None:
        self._instruments, self._started, self.absent = instruments, dict[str, Instrument](), dict[str, str]()
        self._peak, self.memory = peak, list[Reading]()

    def start(self) -> None:
        try:
            self._peak.start()
        except MeterError as error:
            self.absent[peak_memory.NAME] = str(error)
        for name, instrument in self._instruments.items():
            try:
                instrument.start()
                self._started[name] = instrument
            except MeterError as error:
                self.absent[f"compress_{name}"] = str(error)

    def stop(self) -> dict[str, float]:
        raw: dict[str, float] = {}
        if peak_memory.NAME not in self.absent:
            self.memory.append(self._peak.stop())
        for name, instrument in self._started.items():
            try:
                raw.update(instrument.stop())
            except MeterError as error:
                self.absent[f"compress_{name}"] = str(error)
        return raw
