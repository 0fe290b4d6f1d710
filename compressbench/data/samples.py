"""Samples of a data set: fixed rows of one pinned revision."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from compressbench.core.errors import DataError
from compressbench.core.names import did_you_mean
from compressbench.data.hub import read_hub
from compressbench.data.sources import HubSource, locate
from compressbench.data.tables import Table, local_revision, read_table, refuse_config

INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
TEXT_ROLES = frozenset({"text", "text_pair"})


@dataclass(frozen=True)
class Samples:
    """Rows by role. `ids` are the row numbers in the split, so they stay the same for every limit.

    `revision` is a commit hash, or `sha256:<hex>` of local files. `columns` has one list per role, each as long as
    `ids`; labels are integers, and `label_names[label]` is the name where names are known.
    """

    source: str
    split: str
    revision: str
    ids: tuple[str, ...]
    columns: dict[str, list[Any]]
    label_names: tuple[str, ...] | None

    def __post_init__(self) -> None:
        if len(set(self.ids)) != len(self.ids):
            raise DataError("sample ids must differ", where=self.source, got=f"{len(self.ids)} ids")
        uneven = {role: len(values) for role, values in self.columns.items() if len(values) != len(self.ids)}
        if uneven:
            raise DataError(f"every column must have {len(self.ids)} rows", where=self.source, got=str(uneven))

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, n: int) -> Samples:
        """The first `n` samples, or all where there are fewer."""
        check_limit(n, self.source)
        return replace(self, ids=self.ids[:n], columns={role: values[:n] for role, values in self.columns.items()})

    def shuffled(self, seed: int) -> Samples:
        """The same rows in an order that `seed` decides; ids go with their rows."""
        order = permutation(len(self), seed)
        columns = {role: [values[index] for index in order] for role, values in self.columns.items()}
        return replace(self, ids=tuple(self.ids[index] for index in order), columns=columns)


def load_samples(
    source: str,
    *,
    split: str,
    columns: Mapping[str, str],
    revision: str | None = None,
    config: str | None = None,
    limit: int | None = None,
) -> Samples:
    """The rows of a split, in the order of the data set.

    `source` is `embedded:banking77`, a local file (.parquet, .jsonl, .json, .csv), a folder with `<split>.<suffix>` or
    Parquet shards `<split>-*.parquet`, the same below the data root as `root:NAME`, or a Hub id `owner/name`. `columns`
    maps roles to column names; the role `label` must hold class numbers or class names, `text` and `text_pair` strings.
    Class names become their index among the sorted names of the whole split (not of the first `limit` rows) and are
    returned as `label_names`.
    `revision` is a branch, tag or commit of a Hub data set, or the `sha256:` that local files must have.

    Raises DataError for anything that is missing, empty, null or of the wrong kind.
    """
    if limit is not None:
        check_limit(limit, source)
    table, found = read_rows_table(source, split, revision, config)
    check_columns(table, source, columns)
    num_rows = table.arrow.num_rows if limit is None else min(limit, table.arrow.num_rows)
    values = {role: column_values(table, source, name) for role, name in columns.items()}
    label_names = None
    for role in TEXT_ROLES & values.keys():
        _check_texts(values[role], f"{source}, column '{columns[role]}'")
    if "label" in values:
        names = table.class_names.get(columns["label"])
        where = f"{source}, column '{columns['label']}'"
        values["label"], label_names = to_labels(values["label"], names, where)
    ids = tuple(str(row) for row in range(num_rows))
    return Samples(source, split, found, ids, {role: v[:num_rows] for role, v in values.items()}, label_names)


def read_rows_table(source: str, split: str, revision: str | None, config: str | None) -> tuple[Table, str]:
    """All rows and columns of a split, and the revision that they come from."""
    place = locate(source, split, form="samples")
    if isinstance(place, HubSource):
        return read_hub(place.name, split=split, revision=revision, config=config)
    refuse_config(config, source)
    return read_table(place), local_revision(place, source, revision)


def permutation(size: int, seed: int) -> list[int]:
    """An order of `size` indices, the same on every machine and with every version of every library."""
    return sorted(range(size), key=lambda index: hashlib.sha256(f"{seed}:{index}".encode()).digest())


def to_labels(
    values: Sequence[Any], names: tuple[str, ...] | None, where: str
) -> tuple[list[int], tuple[str, ...] | None]:
    """Class numbers from 0, and their names. Names in `values` are numbered in sorted order; digits are numbers."""
    if all(isinstance(value, str) for value in values):
        numbers = [value for value in values if INTEGER.fullmatch(value)]
        if not numbers:
            return _numbered(values, names or tuple(sorted(set(values))), where)
        if len(numbers) < len(values):
            odd = next(value for value in values if not INTEGER.fullmatch(value))
            raise DataError("labels are all numbers or all names", where=where, got=f"{numbers[0]!r} and {odd!r}")
        values = [int(value) for value in values]
    num_labels = len(names) if names is not None else None
    for row, value in enumerate(values):
        if type(value) is not int or value < 0 or (num_labels is not None and value >= num_labels):
            raise DataError(
                f"a label must be an integer from 0 {f'to {num_labels - 1}' if num_labels else 'up'}",
                where=f"{where}, row {row}",
                got=repr(value),
                do="A split whose labels are withheld (-1) can't be scored.",
            )
    return list(values), names


def _numbered(values: Sequence[str], names: tuple[str, ...], where: str) -> tuple[list[int], tuple[str, ...]]:
    index = {name: number for number, name in enumerate(names) if name}
    for row, value in enumerate(values):
        if value not in index:
            what = "not one of the label names" if value else "a label is missing"
            raise DataError(what, where=f"{where}, row {row}", got=repr(value), do=did_you_mean(value, index))
    return [index[value] for value in values], names


def check_limit(limit: int, source: str) -> None:
    """Raise DataError for a limit that leaves no sample."""
    if limit < 1:
        raise DataError("at least one sample is needed", where=source, got=f"limit {limit}")


def check_columns(table: Table, source: str, columns: Mapping[str, str]) -> None:
    """Raise DataError if one of the columns, by role, isn't there, or there are no rows."""
    known = table.arrow.column_names
    for role, name in columns.items():
        if known and name not in known:
            raise DataError(
                f"no column '{name}' for the {role}",
                where=source,
                got=f"columns {', '.join(known)}",
                do=did_you_mean(name, known),
            )
    if table.arrow.num_rows == 0:
        raise DataError("the data set is empty", where=source, got="0 rows")


def column_values(table: Table, source: str, name: str) -> list[Any]:
    """Raises DataError where one is null."""
    column = table.arrow.column(name)
    values: list[Any] = column.to_pylist()
    if column.null_count:
        raise DataError(
            "a needed value is missing",
            where=f"{source}, column '{name}', row {values.index(None)}",
            got=f"null in {column.null_count} of {len(values)} rows",
            do="Drop or fill these rows.",
        )
    return values


def _check_texts(values: Sequence[Any], where: str) -> None:
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(
                "a text must be a string",
                where=f"{where}, row {row}",
                got=repr(value),
                do="Name the column that holds the text.",
            )
