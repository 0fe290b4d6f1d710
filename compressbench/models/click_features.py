"""What turns columns of a click log into a recommendation model's inputs: ids to rows of tables, counts to logarithms."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import FeatureExtractionMixin

from compressbench.core.errors import DataError


class ClickFeatures(FeatureExtractionMixin):  # type: ignore[misc]  # transformers ships no types
    """Columns by name, in the order in which the model reads them, and how many rows each table has.

    A categorical value finds its row by hashing (Weinberger et al. 2009, arXiv:0902.2206): a whole number modulo the rows
    of its table, a text by the CRC-32 of `column=text` modulo the same. Values that meet in one row share it, ones that no
    training has seen too. A count becomes log(1 + count), one below zero counts as zero.
    """

    model_input_names = ("dense_features", "sparse_ids")

    def __init__(
        self,
        dense_columns: Sequence[str] = (),
        categorical_columns: Sequence[str] = (),
        table_sizes: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dense_columns, self.categorical_columns = list(dense_columns), list(categorical_columns)
        self.table_sizes = [int(size) for size in table_sizes]
        if len(self.table_sizes) != len(self.categorical_columns):
            raise ValueError(f"{len(self.categorical_columns)} categorical columns and {len(self.table_sizes)} tables")

    @property
    def columns(self) -> list[str]:
        return [*self.dense_columns, *self.categorical_columns]

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, torch.Tensor]:
        """`dense_features` (rows x counts, float32) and `sparse_ids` (rows x tables, int64) of these columns.

        Raises DataError for a count that is no finite number and for an id that is neither a whole number nor a text.
        """
        size = len(columns[self.columns[0]])
        dense = [_logarithms(columns[name], name) for name in self.dense_columns]
        ids = [
            torch.tensor([bucket(value, name, rows) for value in columns[name]], dtype=torch.int64)
            for name, rows in zip(self.categorical_columns, self.table_sizes, strict=True)
        ]
        return {
            "dense_features": torch.stack(dense, dim=1) if dense else torch.empty(size, 0),
            "sparse_ids": torch.stack(ids, dim=1) if ids else torch.empty(size, 0, dtype=torch.int64),
        }


def bucket(value: Any, column: str, num_rows: int) -> int:
    """Which row of a table of `num_rows` a categorical value has."""
    if isinstance(value, str):
        return zlib.crc32(f"{column}={value}".encode()) % num_rows
    if isinstance(value, int):
        return value % num_rows
    raise DataError("a categorical value is a whole number or a text", where=f"column '{column}'", got=repr(value)[:80])


def _logarithms(values: Sequence[Any], column: str) -> torch.Tensor:
    try:
        found = torch.tensor([float(value) for value in values], dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise DataError("a count is a number", where=f"column '{column}'", got=str(error)) from error
    if not bool(found.isfinite().all()):
        raise DataError("a count is a finite number", where=f"column '{column}'", got="inf or NaN")
    return found.clamp_min(0).log1p()
