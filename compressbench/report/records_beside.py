"""The records that a record needs beside it: the baseline of its run, without which its costs can't be judged."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from compressbench.records.record import Record
from compressbench.records.store import read_record, stem_of


def with_baselines(files: Iterable[Path]) -> list[Path]:
    """The files, and the baselines of their runs that lie beside them. Raises RecordError for a file that is no record."""
    found = {file.resolve(): file for file in files}
    for file in list(found.values()):
        baseline = baseline_beside(file, read_record(file))
        if baseline is not None:
            found.setdefault(baseline.resolve(), baseline)
    return list(found.values())


def baseline_beside(file: Path, record: Record) -> Path | None:
    """The baseline of the record's run, if it is there; it may be the record itself."""
    try:
        baseline = file.with_name(f"{stem_of(record.recipe.name, 'baseline', record.run_id)}.json")
        return baseline if baseline.is_file() else None
    except (ValueError, OSError):  # a recipe's name that is no file name; it was given another one
        return None
