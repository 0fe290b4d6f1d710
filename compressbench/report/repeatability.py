"""Intervals of how well a number repeats, for comparing rows of different runs that one instrument took on one machine.

An estimate of energy says nothing of how far from the truth it is, so it has no interval of its own. But what its
instrument is wrong by, a factor, is the same for all rows that it took on one machine, and changes no ratio of two. For
a comparison of these the spread between the rounds is what counts, as it is for times.
"""

from __future__ import annotations

from collections.abc import Sequence

from compressbench.core.reading import Reading
from compressbench.records.record import Record
from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender
from compressbench.report.numbers import numbers_of

_ENERGY = "energy_j"
_NOTE = (
    "Energy of rivals is compared by the spread of each row's own rounds (95 %): the instrument states no uncertainty, and "
    "what it is wrong by is taken to be the same factor for all rows. What differs from run to run is not in it."
)


def with_spread(
    catalog: Catalog, contenders: Sequence[Contender], name: str
) -> tuple[Sequence[Contender], str]:  # fmt: skip
    """The contenders with the spread of their rounds as interval where this energy has none, and the note that says so.

    Unchanged, with "", if the number is no energy, none lacks an interval, or instruments differ.
    """
    lacking = [each for each in contenders if _lacks(each, name)]
    if not name.startswith("energy") or not lacking or _num_instruments(catalog, contenders, name) > 1:
        return contenders, ""
    found = {each.at: spread_of(catalog.record(each.at), name) for each in lacking}
    if not any(found.values()):
        return contenders, ""
    return [_with(each, name, found.get(each.at)) for each in contenders], _NOTE


def spread_of(record: Record, name: str) -> Reading | None:
    """The number with the interval that its rounds give it, as if its instrument were exact; None if there is none."""
    measurement = record.measurement
    how = None if measurement is None else measurement.provenance.get(_ENERGY)
    if measurement is None or how is None:
        return None
    exact = how.model_copy(update={"relative_uncertainty": 0.0, "uncertainty_reason": ""})
    provenance = {**measurement.provenance, _ENERGY: exact}
    changed = record.model_copy(update={"measurement": measurement.model_copy(update={"provenance": provenance})})
    found = numbers_of(changed).get(name)
    return None if found is None or found.low is None else found


def _lacks(contender: Contender, name: str) -> bool:
    figure = contender.figures.get(name)
    return figure is not None and figure.value is not None and figure.low is None


def _num_instruments(catalog: Catalog, contenders: Sequence[Contender], name: str) -> int:
    cells = [catalog.row(each.at).cells.get(name) for each in contenders]
    return len({(cell.kind, cell.source) for cell in cells if cell is not None and cell.value is not None})


def _with(contender: Contender, name: str, spread: Reading | None) -> Contender:
    if spread is None:
        return contender
    figure = contender.figures[name]._replace(low=spread.low, high=spread.high)
    return contender._replace(figures={**contender.figures, name: figure})
