"""A meter that was chosen, why the better ones weren't, and a second one that reads the same windows beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from compressbench.core.errors import MeterError
from compressbench.core.instruments import HasSeries, WantsLead, wants_lead
from compressbench.core.protocols import Instrument, Provenance, Window
from compressbench.records.crosscheck import CROSSCHECK

NAME = "energy_j"
T = TypeVar("T")


class Chosen:
    """The windows of `primary`; what `second` read in the same ones stands beside them as "crosscheck_energy_j".

    The second is marked around the first. Whatever happens to it costs the first nothing: once it has failed it is left
    alone, and its notes say why. `notes`, why better meters aren't there, come with the provenance of "energy_j".
    """

    def __init__(self, primary: Instrument, second: Instrument | None = None, notes: Sequence[str] = ()) -> None:
        self._primary, self._second, self._notes = primary, second, tuple(notes)
        self._lost, self._void = "", Counter[str]()
        self.min_window_s = primary.min_window_s

    @property
    def provenances(self) -> Mapping[str, Provenance]:
        found = dict(self._primary.provenances)
        if NAME in found:
            found[NAME] = _noted(found[NAME], self._notes)
        second = None if self._second is None else self._second.provenances.get(NAME)
        if second is not None:
            void = (f"{count} windows without a value: {reason}" for reason, count in self._void.items())
            lost = (f"failed: {self._lost}",) if self._lost else ()
            found[CROSSCHECK + NAME] = _noted(second, (*void, *lost))
        return found

    @property
    def wants_lead(self) -> bool:
        return wants_lead(self._primary)

    def lead(self, *, before: bool) -> Callable[[], bool]:
        """Of the first meter, which wants it."""
        assert isinstance(self._primary, WantsLead)  # noqa: S101 -- asked only where it is wanted
        return self._primary.lead(before=before)

    def start(self) -> None:
        self._of_second(lambda second: second.start(), None)
        self._primary.start()

    def stop(self) -> None:
        try:
            self._primary.stop()
        finally:
            self._of_second(lambda second: second.stop(), None)

    def collect(self) -> list[Window]:
        windows = self._primary.collect()
        beside = self._of_second(lambda second: _as_many(second.collect(), len(windows)), None)
        if beside is None:
            return windows
        self._void.update(window.reason for window in beside if window.reason)
        return [_beside(*pair) for pair in zip(windows, beside, strict=True)]

    def series(self, begin_ns: int, end_ns: int) -> list[tuple[int, float]] | None:
        """When the first meter moved; None if it doesn't keep that."""
        return self._primary.series(begin_ns, end_ns) if isinstance(self._primary, HasSeries) else None

    def close(self) -> None:
        try:
            self._primary.close()
        finally:
            if self._second is not None:
                self._lost = ""  # also one that failed holds a thread or a handle
                self._of_second(lambda second: second.close(), None)

    def _of_second(self, do: Callable[[Instrument], T], otherwise: T) -> T:
        if self._second is None or self._lost:
            return otherwise
        try:
            return do(self._second)
        except Exception as error:  # noqa: BLE001 -- whatever a second meter raises, the first has its number
            self._lost = str(error) or type(error).__name__
            return otherwise


def _as_many(windows: list[Window], expected: int) -> list[Window] | None:
    if len(windows) != expected:
        raise MeterError("the second meter has other windows than the first", got=f"{len(windows)} for {expected}")
    return windows


def _beside(window: Window, second: Window) -> Window:
    """A void window stays void: a cross-check doesn't stand in for the number."""
    if window.reason or NAME not in second.values:
        return window
    return window.model_copy(
        update={
            "values": {**window.values, CROSSCHECK + NAME: second.values[NAME]},
            "uncertainties": {**window.uncertainties, CROSSCHECK + NAME: second.uncertainties[NAME]},
        }
    )


def _noted(how: Provenance, notes: tuple[str, ...]) -> Provenance:
    return how.model_copy(update={"notes": (*notes, *how.notes)}) if notes else how
