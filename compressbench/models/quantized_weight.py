"""A quantized weight matrix: integer codes, scales and zero points, and the floating-point matrix that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

_InPlace = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class QuantizedWeight:
    """weight = (codes - zero) * scale, or codebook[codes] * scale, group by group along the input features.

    `codes` (out x in, uint8) lie in 0 .. 2**bits - 1; `scale` is out x groups. `zero` (out x groups) is uint8 for integer
    zero points, floating for HQQ's, None for the symmetric 2**(bits - 1). `group_size` -1 is one group per row, and the
    last group may be shorter. `group_of` (in, int32) gives each column's group where that isn't column // group_size
    (GPTQ's act-order). `codebook` (2**bits values) replaces the integer grid (NF4), and then there is no zero.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    bits: int
    group_size: int = -1
    zero: torch.Tensor | None = None
    group_of: torch.Tensor | None = None
    codebook: torch.Tensor | None = None

    def dequantize(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The matrix (out x in), computed in float32 and rounded once to `dtype`."""
        if self.codebook is not None:
            values = self.codebook.float()[self.codes.int()]
        else:
            values = self.codes.float()
            self._on_groups(values, torch.Tensor.sub_, self.zero_points())
        self._on_groups(values, torch.Tensor.mul_, self.scale)
        return values.to(dtype)

    def zero_points(self) -> torch.Tensor:
        """out x groups, the symmetric ones written out."""
        if self.zero is not None:
            return self.zero
        return torch.full_like(self.scale, 2 ** (self.bits - 1), dtype=torch.float32)

    def _on_groups(self, values: torch.Tensor, operation: _InPlace, per_group: torch.Tensor) -> None:
        """Apply `operation` (sub_ or mul_) to values (out x in) with one number per row and group (out x groups)."""
        columns, groups = values.shape[1], per_group.shape[1]
        numbers = per_group.float()
        if groups == 1:
            operation(values, numbers)
        elif self.group_of is not None:
            operation(values, numbers[:, self.group_of.int()])
        else:
            whole = columns // self.group_size  # the last group may be shorter
            grouped = values[:, : whole * self.group_size].view(len(values), whole, self.group_size)
            operation(grouped, numbers[:, :whole, None])
            if whole < groups:
                operation(values[:, whole * self.group_size :], numbers[:, whole:])
