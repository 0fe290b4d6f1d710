"""Documents of a data set: whole rows, with all their columns, of one pinned revision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from compressbench.core.errors import DataError
from compressbench.data.samples import check_limit, permutation, read_rows_table


@dataclass(frozen=True)
class Documents:
    """Rows as they are in the table: numbers, strings, lists and dictionaries by column; labels as their numbers.

    `ids` are the row numbers in the split, so they stay the same for every limit. `revision` is a commit hash, or
    `sha256:<hex>` of local files.
    """

    source: str
    split: str
    revision: str
    ids: tuple[str, ...]
    rows: list[dict[str, Any]]

    def __post_init__(self) -> None:
        if len(set(self.ids)) != len(self.ids):
            raise DataError("document ids must differ", where=self.source, got=f"{len(self.ids)} ids")
        if len(self.rows) != len(self.ids):
            raise DataError(f"{len(self.ids)} ids need as many rows", where=self.source, got=f"{len(self.rows)} rows")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, n: int) -> Documents:
        """The first `n` documents, or all where there are fewer."""
        check_limit(n, self.source)
        return replace(self, ids=self.ids[:n], rows=self.rows[:n])

    def shuffled(self, seed: int) -> Documents:
        """The same documents in an order that `seed` decides; ids go with their rows."""
        order = permutation(len(self), seed)
        return replace(self, ids=tuple(self.ids[at] for at in order), rows=[self.rows[at] for at in order])


def load_documents(
    source: str,
    *,
    split: str,
    revision: str | None = None,
    config: str | None = None,
    limit: int | None = None,
) -> Documents:
    """The rows of a split, in the order of the data set, from a table as in `compressbench.data.samples.load_samples`.

    Raises DataError for data that is missing, empty or can't be read.
    """
    if limit is not None:
        check_limit(limit, source)
    table, found = read_rows_table(source, split, revision, config)
    if table.arrow.num_rows == 0:
        raise DataError("the data set is empty", where=source, got="0 rows")
    rows = table.arrow.slice(0, limit).to_pylist()
    return Documents(source, split, found, tuple(str(row) for row in range(len(rows))), rows)
