"""Opening what a recipe wants to have read, and saying why something can't be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from compressbench.core.errors import CompressbenchError
from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Instrument, Session
from compressbench.core.reading import Reading
from compressbench.core.registry import Resolved


class Opened(NamedTuple):
    """Block meters that work on this machine, and by name the reasons for those that don't."""

    instruments: dict[str, Instrument]
    absent: dict[str, str]


@contextmanager
def opened(meters: Iterable[Resolved], device: str, progress: Progress) -> Iterator[Opened]:
    """Open every block meter for the length of a run. A meter that can't be opened is absent with its reason."""
    instruments: dict[str, Instrument] = {}
    absent: dict[str, str] = {}
    wanted = [meter for meter in meters if meter.value.scope == "block"]
    with progress.bar("open meters", len(wanted)) as bar:
        for meter in wanted:
            try:
                instruments[meter.name] = meter.value.open(device)
            except CompressbenchError as error:
                absent[meter.name] = str(error)
            bar.advance()
    try:
        yield Opened(instruments, absent)
    finally:
        for instrument in instruments.values():
            instrument.close()


def read_probes(
    meters: Iterable[Resolved], handle: Any, session: Session, batch: Batch
) -> tuple[list[Reading], dict[str, str]]:
    """Readings of all meters that belong to a model, and reasons for those that failed."""
    readings: list[Reading] = []
    absent: dict[str, str] = {}
    for meter in meters:
        if meter.value.scope == "model":
            try:
                readings.extend(meter.value.read(handle, session, batch))
            except CompressbenchError as error:
                absent[meter.name] = str(error)
    return readings, absent


def energy_reading(name: str, instruments: Mapping[str, Instrument], raw: Mapping[str, float]) -> Reading | None:
    """The joules of a window as a reading, with the provenance and uncertainty of the instrument that read them."""
    instrument = instruments.get("energy")
    value = raw.get("energy_j")
    if instrument is None or value is None:
        return None
    provenance = instrument.provenance
    relative = provenance.relative_uncertainty
    return Reading(
        name=name,
        value=value,
        kind=provenance.kind,
        source=provenance.source,
        boundary=provenance.boundary,
        low=None if relative is None else value * (1 - relative),
        high=None if relative is None else value * (1 + relative),
        uncertainty_reason=provenance.uncertainty_reason,
    )
