"""Opening what a recipe wants to have read, and saying why something can't be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from compressbench.core.errors import CompressbenchError, MissingMeasurementError, in_words
from compressbench.core.instruments import wants_lead
from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Instrument, Provenance, Session
from compressbench.core.reading import Kind, Reading, at_least
from compressbench.core.registry import Resolved
from compressbench.measure.working import WindowsOfBlock

ENERGY = "energy_j"
_Z95 = 1.959963984540054


class Opened(NamedTuple):
    """Block meters that work on this machine, and by name the reasons for those that don't."""

    instruments: dict[str, Instrument]
    absent: dict[str, str]

    @property
    def min_window_s(self) -> float:
        """What the slowest of them asks of a window."""
        return max((each.min_window_s for each in self.instruments.values()), default=0.0)

    @property
    def lead_tick_s(self) -> float:
        """The longest tick of those that want work to go on beside a window; 0 if there are none."""
        found = [(each, how.tick_s) for each in self.instruments.values() for how in each.provenances.values()]
        return max((tick_s or 0.0 for each, tick_s in found if wants_lead(each)), default=0.0)


@contextmanager
def opened(meters: Iterable[Resolved], device: str, progress: Progress) -> Iterator[Opened]:
    """Open every block meter for the length of a run. A meter that can't be opened is absent with its reason.

    All are closed at the end, whatever happens; one that can't be closed says so and does no harm.
    """
    found = Opened({}, {})
    wanted = [meter for meter in meters if meter.value.scope == "block"]
    with ExitStack() as stack:
        with progress.bar("open meters", len(wanted)) as bar:
            for meter in wanted:
                try:
                    instrument = meter.value.open(device)
                    stack.callback(_close, meter.name, instrument, progress)
                    _add(found, meter.name, instrument)
                except Exception as error:  # noqa: BLE001 -- whatever a meter raises, it costs no more than its numbers
                    found.absent[meter.name] = in_words(error)
                bar.advance()
        yield found


def require_energy(meters: Iterable[Resolved], opened: Opened, kind: Kind | None = "measured") -> None:
    """Raise MissingMeasurementError (exit code 4) unless an open meter gives "energy_j" of that kind or a better one.

    Joules of any other name are beside the point: no table ranks them. Call it before anything is measured. The error has
    the reason of every meter, and of better ones that weren't there. None asks for nothing.
    """
    if kind is None:
        return
    reasons: list[str] = []
    for name, instrument in opened.instruments.items():
        how = instrument.provenances.get(ENERGY)
        if how is None:
            continue
        if how.kind in at_least(kind):
            return
        notes = f" ({'; '.join(how.notes)})" if how.notes else ""
        reasons.append(f"{name}: {how.kind}, {how.source}{notes}")
    asked = [meter.name for meter in meters if meter.value.scope == "block"]
    reasons += [f"{name}: {opened.absent[name]}" for name in asked if name in opened.absent]
    raise MissingMeasurementError(
        f"energy has to be {kind}, and no meter of this run gives that",
        got="; ".join(reasons) or "no energy meter among the recipe's meters",
        do="`compressbench doctor` says what this machine can read.",
    )


def forget_windows(instruments: Mapping[str, Instrument]) -> dict[str, str]:
    """Throw away what an interrupted measurement left marked. Returns the reasons of those that can't be read.

    Those reasons come again when the instrument is used.
    """
    failed: dict[str, str] = {}
    for name, instrument in instruments.items():
        try:
            instrument.collect()
        except Exception as error:  # noqa: BLE001 -- whatever a meter raises, it costs no more than its numbers
            failed[name] = in_words(error)
    return failed


def read_probes(
    meters: Iterable[Resolved], handle: Any, session: Session, batch: Batch, output_tokens: int | None = None
) -> tuple[list[Reading], dict[str, str]]:
    """Readings of all meters that belong to a model, and reasons for those that failed."""
    readings: list[Reading] = []
    absent: dict[str, str] = {}
    for meter in meters:
        if meter.value.scope == "model":
            try:
                readings.extend(meter.value.read(handle, session, batch, output_tokens))
            except CompressbenchError as error:
                absent[meter.name] = str(error)
    return readings, absent


def energy_reading(name: str, how: Provenance | None, window: WindowsOfBlock, seconds: float) -> Reading | None:
    """The joules of one window of so many seconds as a reading; None if it has none, or nobody says how it was read.

    The interval (95 %) joins the uncertainty of the window and that of the instrument's gain; an instrument that doesn't
    know its gain has a reason instead.
    """
    value = window.raw.get(ENERGY)
    if value is None or how is None:
        return None
    relative, half = how.relative_uncertainty, 0.0
    if relative is not None:
        half = _Z95 * math.hypot(window.uncertainties.get(ENERGY, 0.0), relative * value)
    return Reading(
        name=name,
        value=value,
        kind=how.kind,
        source=how.source,
        boundary=how.boundary,
        low=None if relative is None else max(0.0, value - half),
        high=None if relative is None else value + half,
        uncertainty_reason=how.uncertainty_reason or ("" if relative is not None else "not stated"),
        window_s=seconds,
        tick_s=how.tick_s,
    )


def _add(found: Opened, name: str, instrument: Instrument) -> None:
    """Two meters that give a value of the same name would overwrite each other: the first in the recipe has it."""
    names = instrument.provenances.keys()
    for other, before in found.instruments.items():
        if both := sorted(before.provenances.keys() & names):
            found.absent[name] = (
                f"the meter '{other}' reads {', '.join(both)} already, and one of them has to be chosen"
            )
            return
    found.instruments[name] = instrument


def _close(name: str, instrument: Instrument, progress: Progress) -> None:
    try:
        instrument.close()
    except Exception as error:  # noqa: BLE001 -- what was measured is measured
        progress.say(f"the meter '{name}' could not be closed: {in_words(error)}")
