"""The records of one run that stand beside a record: its baseline, and the candidates whose scores are judged with it."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from compressbench.core.errors import RecordError
from compressbench.records.record import Record
from compressbench.records.store import Unreadable, read_record, stem_of


def run_beside(path: Path, record: Record) -> tuple[list[Record], list[Unreadable]]:
    """All records of the record's run and recipe in its folder, `record` among them, and what could not be read.

    They are found by the run in their file names, so that a folder of a hundred thousand records isn't read.
    """
    found, unreadable = [record], list[Unreadable]()
    for file in sorted(path.parent.glob(f"*.{glob.escape(record.run_id)}.json")):
        if file == path:
            continue
        try:
            other = read_record(file)
        except RecordError as error:
            unreadable.append(Unreadable(file, str(error)))
            continue
        is_same_run = (other.run_id, other.recipe.hash) == (record.run_id, record.recipe.hash)
        if is_same_run and other.key != record.key:
            found.append(other)
    return sorted(found, key=lambda each: each.position), unreadable


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
