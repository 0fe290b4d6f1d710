"""The records that a record needs beside it: the baseline of its run, without which its costs can't be judged."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from compressbench.records.store import read_record, stem_of


def with_baselines(files: Iterable[Path]) -> list[Path]:
    """The files, and the baselines of their runs that lie beside them. Raises RecordError for a file that is no record."""
    given = list(files)
    seen = {file.resolve() for file in given}
    for file in list(given):
        record = read_record(file)
        baseline = file.with_name(f"{stem_of(record.recipe.name, 'baseline', record.run_id)}.json")
        if baseline.is_file() and baseline.resolve() not in seen:
            seen.add(baseline.resolve())
            given.append(baseline)
    return given
