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
from compressbench.measure.instruments import ENERGY, energy_reading, forget_windows
from compressbench.measure.peak_memory import PeakMemory
from compressbench.measure.working import working
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
    window = _Window(instruments, handle.device)
    window.start()
    try:
        handle, applied = _apply(handle, steps, progress)
    finally:
        window.stop()  # the next candidate starts the same instruments again
    readings = [_seconds(sum(step.seconds for step in applied)), *window.readings]
    return Compressed(handle, tuple(applied), readings, window.absent)


def _apply(handle: Any, steps: Sequence[Resolved], progress: Progress) -> tuple[Any, list[AppliedStep]]:
    applied: list[AppliedStep] = []
    with progress.bar("compress", len(steps)) as bar:
        for step in steps:
            _check(step, handle)
            begun = time.perf_counter()
            handle = step.value.apply(handle)
            _synchronize(handle.device)
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
    """One window over all steps, on the instruments that can read it. Their windows may be as long as they like."""

    def __init__(self, instruments: Mapping[str, Instrument], device: str) -> None:
        self.readings, self.absent = list[Reading](), dict[str, str]()
        self._instruments, self._working = instruments, working(instruments)
        self._peak, self._begun = PeakMemory(device), 0.0

    def start(self) -> None:
        try:
            self._peak.start()
        except MeterError as error:
            self.absent[peak_memory.NAME] = str(error)
        forget_windows(self._instruments)
        self._working.start()
        self._begun = time.perf_counter()

    def stop(self) -> None:
        seconds = time.perf_counter() - self._begun
        self._working.stop()
        if peak_memory.NAME not in self.absent:
            self.readings.append(self._peak.stop())
        [window] = self._working.collect()
        energy = energy_reading(f"compress_{ENERGY}", self._working.provenance().get(ENERGY), window, seconds)
        if energy is not None:
            self.readings.insert(0, energy)
        reasons = {**window.void, **self._working.failed}
        self.absent.update({f"compress_{name}": reason for name, reason in reasons.items()})


def _synchronize(device: str) -> None:
    """Wait for what a step has asked of a GPU: its time and energy belong to it."""
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize(device)
