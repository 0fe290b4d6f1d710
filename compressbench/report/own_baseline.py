"""The baseline that ran beside a candidate, which its ratio is against, where the baseline's row shows another value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from compressbench.report.rows import Row

NOTICEABLE = 0.05
"""Readers who divide two values of a table then miss the ratio beside them by less than this."""

Baselines = Mapping[tuple[str, str], Row]
"""By run and recipe."""


def baselines_of(rows: Iterable[Row]) -> Baselines:
    return {(row.run_id, row.recipe): row for row in rows if row.role == "baseline"}


def told_apart(own: float | None, shown: float | None) -> float | None:
    """The baseline's own value beside a candidate, if the value of the baseline's row doesn't stand for it."""
    if own is None or (shown and abs(own / shown - 1) <= NOTICEABLE):
        return None
    return own


def own_value(row: Row, name: str, baselines: Baselines) -> float | None:
    """What a cell shows beside its value; None where there is nothing to tell."""
    verdict, cell = row.against_baseline.get(name), row.cells.get(name)
    if verdict is None or verdict.baseline_value is None or cell is None or cell.value is None:
        return None
    baseline = baselines.get((row.run_id, row.recipe))
    shown = None if baseline is None or name not in baseline.cells else baseline.cells[name].value
    return told_apart(verdict.baseline_value, shown)


ARROW = " → "


def together(one: str, other: str, between: str = ARROW) -> str:
    """`13.0 → 7.88 ms`: the unit once where both have the same."""
    number, _, unit = one.rpartition(" ")
    is_same = number and unit in other.split(" ")[1:2]
    return f"{number if is_same else one}{between}{other}"


def ranges(rows: Sequence[Row], names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Over what the baseline ranges, in the quantities in which an arrow stands in any cell."""
    baselines = baselines_of(rows)
    found: dict[str, tuple[float, float]] = {}
    for name in names:
        if any(own_value(row, name, baselines) is not None for row in rows):
            there = [row.against_baseline[name].baseline_value for row in rows if name in row.against_baseline]
            there += [row.cells[name].value for row in baselines.values() if name in row.cells]
            found[name] = bounds(there)
    return found


def bounds(values: Iterable[float | None]) -> tuple[float, float]:
    known = [value for value in values if value is not None]
    return min(known), max(known)
