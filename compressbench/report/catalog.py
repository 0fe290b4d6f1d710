"""Records as rows to decide among: read once, the newest of each recipe and candidate kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from compressbench.core.garbage import no_garbage_collection
from compressbench.records.store import Unreadable, read_records
from compressbench.report.figures import Contender, contender_of
from compressbench.report.rows import Row, latest, rows_of


class Catalog:
    """Rows in the order of their runs. `unreadable` are the files that were left out, and why."""

    def __init__(self, rows: Sequence[Row], unreadable: Sequence[Unreadable] = ()) -> None:
        self._rows = rows
        self.unreadable = list(unreadable)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, at: int) -> Row:
        """The whole row of a contender."""
        return self._rows[at]

    def contenders(self, names: Iterable[str] = (), *, recipe: str = "", key: str = "") -> list[Contender]:
        """All rows, or those of one recipe or comparability key, with their tasks' metrics and the costs asked for."""
        asked = list(names)
        return [
            contender_of(row, dict.fromkeys([*row.metrics, *asked]), at)
            for at, row in enumerate(self._rows)
            if recipe in ("", row.recipe) and key in ("", row.comparability_key)
        ]


def open_catalog(paths: Iterable[Path], *, all_runs: bool = False) -> Catalog:
    """Records in files and folders. Raises RecordError if a path doesn't exist or holds no record at all."""
    with no_garbage_collection():
        records, unreadable = read_records(paths)
        return Catalog(rows_of(records if all_runs else latest(records)), unreadable)
