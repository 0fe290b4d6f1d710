"""Records as rows to decide among: read once, the newest of each recipe and candidate kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from compressbench.core.garbage import no_garbage_collection
from compressbench.records.store import Located, Unreadable, read_located
from compressbench.report.detail import detail_of
from compressbench.report.figures import Contender, contender_of
from compressbench.report.rows import Row, latest, rows_of


class Catalog:
    """Rows in the order of their runs, by place. `unreadable` are the files that were left out, and why."""

    def __init__(self, located: Sequence[Located], unreadable: Sequence[Unreadable] = ()) -> None:
        self._located = located
        self._rows = rows_of(each.record for each in located)
        self.unreadable = list(unreadable)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, at: int) -> Row:
        """The whole row of a contender."""
        return self._rows[at]

    def path(self, at: int) -> Path:
        """The file of its record."""
        return self._located[at].path

    def details(self, places: Iterable[int]) -> Iterator[str]:
        """What a page of one record shows beyond its row, as JSON, in the order of the places."""
        for at in places:
            yield json.dumps(detail_of(*self._located[at]))

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
        located, unreadable = read_located(paths)
        if not all_runs:
            kept = {id(record) for record in latest([each.record for each in located])}
            located = [each for each in located if id(each.record) in kept]
        return Catalog(located, unreadable)
