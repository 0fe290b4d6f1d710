"""Rows of one run, computed one by one where together they can't be: an impossible record doesn't take others away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from compressbench.records.record import Record

Row = TypeVar("Row")
Compute = Callable[[Sequence[Record]], list[Row]]
"""Rows of records of one run, its baseline among them."""

# what a record leads to that no run wrote: overflow, roots of negative numbers, blocks or rounds that are not there
_BEYOND_ARITHMETIC = (ArithmeticError, LookupError, ValueError)


def rows_of_run(records: Sequence[Record], compute: Compute[Row], refuse: Callable[[Record, str], Row]) -> list[Row]:
    """A row per record, in their order; `refuse` makes those of records whose numbers are beyond arithmetic."""
    try:
        return compute(records)
    except _BEYOND_ARITHMETIC:
        baseline = baseline_of(records)
        # with an impossible baseline the others stand without any
        if baseline is not None and _why_not(compute, [baseline]):
            baseline = None
        why = [_why_not(compute, [record] if baseline in (None, record) else [baseline, record]) for record in records]
        sound = iter(compute([record for record, reason in zip(records, why, strict=True) if not reason]))
        return [refuse(each, reason) if reason else next(sound) for each, reason in zip(records, why, strict=True)]


def baseline_of(run: Sequence[Record]) -> Record | None:
    """The one that candidates are compared with; nobody takes its place by adding another under another name."""
    found = [record for record in run if record.role == "baseline"]
    return next((each for each in reversed(found) if each.candidate == "baseline"), found[-1] if found else None)


def _why_not(compute: Compute[Row], records: Sequence[Record | None]) -> str:
    try:
        compute([record for record in records if record is not None])
    except _BEYOND_ARITHMETIC as error:
        return f"its numbers are beyond arithmetic ({type(error).__name__})"
    return ""
