"""Joules of a server on this machine, by meters that see more than this process; of one elsewhere nothing is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from compressbench.core.errors import in_words
from compressbench.core.protocols import Clock, Instrument
from compressbench.core.reading import Reading
from compressbench.measure.beside import MAX_LEAD_NS
from compressbench.measure.idle import read_idle
from compressbench.measure.instruments import ENERGY, energy_reading
from compressbench.measure.working import WindowsOfBlock, Working, working
from compressbench.records.idle_power import OF_THIS_PROCESS

_POLL_S = 0.01
ELSEWHERE = "the server runs elsewhere, and no meter here sees it"


class HostEnergy:
    """An open meter of the machine, or `absent` with the reason why there is none.

    One that must not be read while a server answers is read before and after, while it is idle.
    """

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        absent: str = "",
        *,
        clock: Clock = time.perf_counter_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._instruments, self.absent = instruments, absent
        self._clock, self._sleep = clock, sleep

    @contextmanager
    def around(self, found: list[Reading]) -> Iterator[None]:
        """Read the meter around the block, and add what it read to `found`."""
        if not self._instruments:
            yield
            return
        work = working(self._instruments)
        idle_w = self._idle_w() if work.wants_lead else 0.0
        self._lead(work, before=True)
        work.start()
        begun_ns = self._clock()
        try:
            yield
        finally:
            seconds = (self._clock() - begun_ns) / 1e9
            work.stop()
            self._lead(work, before=False)
            [read] = work.collect()
            reasons = (self.absent, *read.void.values(), *work.failed.values())
            self.absent = "; ".join(dict.fromkeys(filter(None, reasons)))
            (instrument,) = self._instruments.values()
            how = instrument.provenances.get(ENERGY)
            reading = energy_reading(ENERGY, how, _without_ends(read, idle_w), seconds)
            if reading is not None:
                found.append(reading.model_copy(update={"boundary": f"host: {reading.boundary}"}))

    def _idle_w(self) -> float:
        idle = read_idle(self._instruments, 0.0, "before", self._sleep, self._clock)
        return idle.raw.get(ENERGY, 0.0) / idle.seconds

    def _lead(self, work: Working, *, before: bool) -> None:
        is_over, until_ns = work.lead(before=before), self._clock() + MAX_LEAD_NS
        while is_over is not None and not is_over() and self._clock() < until_ns:
            self._sleep(_POLL_S)


def _without_ends(read: WindowsOfBlock, idle_w: float) -> WindowsOfBlock:
    """What a counter that wasn't read within counted beside the window, it counted of an idle machine."""
    between = read.between.get(ENERGY)
    if between is None or not idle_w:
        return read
    joules = between.value - idle_w * (between.ends_s - between.begins_s)
    return read._replace(raw={**read.raw, ENERGY: joules})


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
