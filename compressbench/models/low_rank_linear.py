"""A linear layer as the product of two thinner ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from torch import nn

from compressbench.models.stored_layer import Layout, StoredLayer


class LowRankLinear(StoredLayer):
    """y = (x Rᵀ) Lᵀ + bias with R (rank x in) and L (out x rank): rank * (in + out) weights in place of in * out.

    Both factors are plain linear modules, which can be trained and quantized like any other.
    """

    kind: ClassVar[str] = "low-rank"
    is_container: ClassVar[bool] = True

    def __init__(self, left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(right.shape[1], left.shape[0])
        self.right = _linear(right, None)
        self.left = _linear(left, bias)

    @property
    def num_weights(self) -> int:
        return self.rank * (self.in_features + self.out_features)

    @property
    def rank(self) -> int:
        return self.right.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.left(self.right(x)))

    def dequantized(self) -> torch.Tensor:
        left, right = (
            part.dequantized() if isinstance(part, StoredLayer) else part.weight.detach().float()
            for part in (self.left, self.right)
        )
        return left @ right

    def layout(self) -> Layout:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "rank": self.rank,
            "bias": getattr(self.left, "bias", None) is not None,
        }

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        return {}

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> LowRankLinear:
        """Empty factors of the right shapes: their tensors are filled in like those of any plain module."""
        columns, rows, rank = (cast(int, layout[name]) for name in ("in_features", "out_features", "rank"))
        bias = torch.empty(rows) if layout["bias"] else None
        return cls(torch.empty(rows, rank), torch.empty(rank, columns), bias)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone())
    return made
