"""Joules of a server on this machine, by meters that see more than this process; of one elsewhere nothing is known."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from compressbench.core.errors import in_words
from compressbench.core.protocols import Instrument
from compressbench.core.reading import Reading
from compressbench.measure.instruments import ENERGY, energy_reading
from compressbench.measure.working import working
from compressbench.records.idle_power import OF_THIS_PROCESS

ELSEWHERE = "the server runs elsewhere, and no meter here sees it"


class HostEnergy:
    """An open meter of the machine, or `absent` with the reason why there is none."""

    def __init__(self, instruments: Mapping[str, Instrument], absent: str = "") -> None:
        self._instruments, self.absent = instruments, absent

    @contextmanager
    def around(self, found: list[Reading]) -> Iterator[None]:
        """Read the meter around the block, and add what it read to `found`."""
        if not self._instruments:
            yield
            return
        work, begun = working(self._instruments), time.perf_counter()
        work.start()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            work.stop()
            [read] = work.collect()
            reasons = (self.absent, *read.void.values(), *work.failed.values())
            self.absent = "; ".join(dict.fromkeys(filter(None, reasons)))
            (instrument,) = self._instruments.values()
            reading = energy_reading(ENERGY, instrument.provenances.get(ENERGY), read, seconds)
            if reading is not None:
                found.append(reading.model_copy(update={"boundary": f"host: {reading.boundary}"}))


@contextmanager
def host_energy(device: str, *, is_here: bool) -> Iterator[HostEnergy]:
    """The best meter of this machine's `device` (cpu, cuda), if the server is here and the meter sees other processes."""
    if not is_here:
        yield HostEnergy({}, ELSEWHERE)
        return
    from compressbench.meters.energy import Energy

    try:
        instrument = Energy(crosscheck=False).open(device)
    except Exception as error:  # noqa: BLE001 -- whatever a meter raises, it costs no more than its numbers
        yield HostEnergy({}, in_words(error))
        return
    try:
        how = instrument.provenances[ENERGY]
        if OF_THIS_PROCESS in how.boundary:
            yield HostEnergy({}, f"the only meter is an estimate of {how.boundary}, and the server is another process")
        else:
            yield HostEnergy({"energy": instrument})
    finally:
        instrument.close()
