"""An embedding table of fewer rows than ids: those that were pruned share one row, and it is stored once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from torch import nn

from compressbench.models.stored_embedding import StoredEmbedding
from compressbench.models.stored_layer import Layout, StoredLayer

_MOST_OF_INT16 = 2**15


class SharedRowsEmbedding(StoredEmbedding):
    """row = rows[row_of[id]]: `row_of` (num_embeddings,) is int16 where that holds the numbers, else int32.

    `rows` is a plain embedding of the rows that stayed, in their order, and of the shared one behind them; it can be
    quantized like any other.
    """

    kind: ClassVar[str] = "shared-rows"
    is_container: ClassVar[bool] = True

    row_of: torch.Tensor

    def __init__(self, row_of: torch.Tensor, rows: torch.Tensor) -> None:
        super().__init__(len(row_of), rows.shape[1])
        self.register_buffer("row_of", row_of)
        self.rows = nn.Embedding(len(rows), rows.shape[1], device="meta")
        self.rows.weight = nn.Parameter(rows.detach().clone(memory_format=torch.contiguous_format))

    @classmethod
    def prune(cls, weight: torch.Tensor, is_pruned: torch.Tensor, shared: torch.Tensor) -> SharedRowsEmbedding:
        """`weight` (ids x columns) with one row, `shared` (columns,), in the place of all that `is_pruned` (ids,)."""
        kept = weight.detach()[~is_pruned]
        row_of = torch.where(is_pruned, len(kept), torch.cumsum(~is_pruned, dim=0) - 1)
        rows = torch.cat([kept, shared.to(weight.dtype)[None]])
        return cls(row_of.to(index_type(len(rows))), rows)

    @property
    def num_weights(self) -> int:
        return int(self.rows.num_embeddings) * self.embedding_dim

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.rows(self.row_of[ids].to(torch.int64)))

    def dequantized(self) -> torch.Tensor:
        """The table as it was before, with the shared row in every place that has it."""
        rows = self.rows.dequantized() if isinstance(self.rows, StoredLayer) else self.rows.weight.detach().float()
        return rows[self.row_of.long()]

    def layout(self) -> Layout:
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "num_rows": int(self.rows.num_embeddings),
        }

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        return {}

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> SharedRowsEmbedding:
        """An empty table of the right shapes: its tensors are filled in like those of any plain module."""
        ids, columns, rows = (cast(int, layout[name]) for name in ("num_embeddings", "embedding_dim", "num_rows"))
        return cls(torch.zeros(ids, dtype=index_type(rows)), torch.zeros(rows, columns))


def index_type(num_rows: int) -> torch.dtype:
    """The smallest type that numbers so many rows."""
    return torch.int16 if num_rows <= _MOST_OF_INT16 else torch.int32


def pruned_bytes(num_ids: int, num_kept: int, row_bytes: int) -> int:
    """What a table takes with so many rows kept and one shared; without any of it, it takes num_ids * row_bytes."""
    return (num_kept + 1) * row_bytes + num_ids * index_type(num_kept + 1).itemsize
