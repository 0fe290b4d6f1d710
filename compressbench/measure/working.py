"""Block meters while they work: one that breaks is dropped with its reason, and with it all that it had read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from compressbench.core.errors import MeterError, in_words
from compressbench.core.instruments import HasSeries, wants_lead
from compressbench.core.protocols import Between, Instrument, Provenance, Window
from compressbench.core.units import unit_of
from compressbench.records.crosscheck import CROSSCHECK


class WindowsOfBlock(NamedTuple):
    """What all instruments read in one window: values and uncertainties by name, and by meter why there is none.

    `between` by name of the value, as in `core.protocols.Window`.
    """

    raw: dict[str, float]
    uncertainties: dict[str, float]
    void: dict[str, str]
    between: dict[str, Between]


@dataclass
class Working:
    """The instruments that still work; `failed` has the reasons of the others."""

    open: dict[str, Instrument]
    failed: dict[str, str] = field(default_factory=dict)
    _names: dict[str, set[str]] = field(default_factory=dict)
    _num_marked: int = 0

    @property
    def min_window_s(self) -> float:
        return max((instrument.min_window_s for instrument in self.open.values()), default=0.0)

    @property
    def wants_lead(self) -> bool:
        """Whether a meter must not be read in blocks that are timed."""
        return any(map(wants_lead, self.open.values()))

    def lead(self, *, before: bool) -> Callable[[], bool] | None:
        """Whether all meters that want work to go on beside a window have seen enough of it; None: no meter wants that."""
        waits = list[Callable[[], bool]]()

        def ask(_: str, instrument: Instrument) -> None:
            if wants_lead(instrument):
                waits.append(instrument.lead(before=before))

        self._each(ask)
        return (lambda: all(is_done() for is_done in waits)) if waits else None

    def start(self) -> None:
        self._each(lambda name, instrument: instrument.start())

    def stop(self) -> None:
        self._each(lambda name, instrument: instrument.stop())
        self._num_marked += 1

    def collect(self) -> list[WindowsOfBlock]:
        """One entry per window since the last time, in their order. May wait for the next tick of the slowest meter."""
        found = [WindowsOfBlock({}, {}, {}, {}) for _ in range(self._num_marked)]
        self._num_marked = 0

        def read(name: str, instrument: Instrument) -> None:
            windows = instrument.collect()
            if len(windows) != len(found):
                raise MeterError(f"the meter '{name}' gave {len(windows)} windows for {len(found)}")
            if unknown := {value for window in windows for value in window.values} - instrument.provenances.keys():
                raise MeterError(f"the meter '{name}' doesn't say how it reads {', '.join(sorted(unknown))}")
            for into, window in zip(found, windows, strict=True):
                self._take(name, window, into)

        self._each(read)
        return found

    def series(self, begin_ns: int, end_ns: int) -> list[tuple[int, float]] | None:
        """When the energy meter moved in that time; None if no meter keeps that. Call it before `collect`."""
        for instrument in self.open.values():
            series = instrument.series(begin_ns, end_ns) if isinstance(instrument, HasSeries) else None
            if series is not None:
                return series
        return None

    def provenance(self) -> dict[str, Provenance]:
        """How every value that was read came about."""
        return {
            value: instrument.provenances[value]
            for name, instrument in self.open.items()
            for value in sorted(self._names.get(name, ()))
        }

    def give_up_leads(self, reason: str) -> None:
        """Drop the meters that want work to go on beside a window."""

        def drop(_: str, instrument: Instrument) -> None:
            if wants_lead(instrument):
                raise MeterError(reason)

        self._each(drop)

    def untrusted(self) -> set[str]:
        """Names of the values of meters that failed later on."""
        return {value for name in self.failed for value in self._names.get(name, ())}

    def _take(self, name: str, window: Window, into: WindowsOfBlock) -> None:
        if empty := [joules for value, joules in window.values.items() if joules <= 0 and _is_energy(value)]:
            # an average with it in would be too low by what it missed
            into.void[name] = f"below resolution: {min(empty):g} J"
            return
        self._names.setdefault(name, set()).update(window.values)
        into.raw.update(window.values)
        into.uncertainties.update(window.uncertainties)
        if window.between is not None:
            into.between.update(dict.fromkeys(window.values, window.between))
        if window.reason:
            into.void[name] = window.reason

    def _each(self, do: Callable[[str, Instrument], None]) -> None:
        for name, instrument in list(self.open.items()):
            try:
                do(name, instrument)
            except Exception as error:  # noqa: BLE001 -- whatever a meter raises, it costs no more than its numbers
                self.failed[name] = in_words(error)
                del self.open[name]


def _is_energy(value: str) -> bool:
    """A second meter that reads nothing where the first does is a finding (records.crosscheck)."""
    return unit_of(value) == "J" and not value.startswith(CROSSCHECK)


def working(instruments: Mapping[str, Instrument]) -> Working:
    return Working(dict(instruments))
