"""GPTQ: rounding column by column, later columns making up for the error of earlier ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from compressbench.methods.maths.column_sweep import ColumnSweep, transposed_copy
from compressbench.methods.maths.inverse_hessian import inverse_factor
from compressbench.methods.maths.uniform import Grid, group_grid, round_to_codes
from compressbench.models.quantized_weight import QuantizedWeight


@dataclass(frozen=True)
class GptqOptions:
    """`damp_percent` of the mean diagonal is added to the Hessian, and `damp_auto_increment` more (GPTQModel's default)
    as often as its Cholesky decomposition fails. `desc_act` takes the columns by falling activation energy. Without
    `static_groups` a group's scale is made when its first column is reached, from weights as they are then; with it, all
    are made before the first, and groups of `desc_act` stay neighbours. `block_size` matters to speed only.
    """

    damp_percent: float = 0.01
    damp_auto_increment: float = 0.0025
    desc_act: bool = False
    static_groups: bool = False
    block_size: int = 128


@dataclass(frozen=True)
class GptqResult:
    """`loss` is Σ (w - q)² / 2d², w as it was when it was rounded and d the factor's diagonal: to rounding
    ½ tr(ΔW H_λ ΔWᵀ), H_λ being the Hessian with `damp` on its diagonal. `damp_percent` is the damping that it took.
    """

    quantized: QuantizedWeight
    loss: float
    damp_percent: float
    damp: float


DEFAULTS = GptqOptions()


def gptq(
    weight: torch.Tensor, hessian: torch.Tensor, grid: Grid, options: GptqOptions = DEFAULTS, keep_zeros: bool = False
) -> GptqResult:
    """Quantize `weight` (out x in) with `hessian` (in x in) of its inputs, Frantar et al. 2022 (arXiv:2210.17323).

    Works in the Hessian's type and in its memory: the Hessian is gone afterwards; the weight is left alone. Weights of
    dead inputs (H_ii = 0) become 0. `keep_zeros`: a weight that is exactly 0, pruned before, stays 0. With a diagonal
    Hessian the result is `rtn`'s, bit for bit. Raises ValueError as `inverse_factor` and `group_grid` do.
    """
    order = hessian.diagonal().argsort(descending=True, stable=True) if options.desc_act else None
    factor = inverse_factor(hessian, options.damp_percent, options.damp_auto_increment, order)
    columns = transposed_copy(weight, hessian.dtype)
    columns[factor.dead] = 0
    grids = _Grids(columns, grid)
    if options.static_groups:
        grids.make_all(columns, order)
    if order is not None:
        columns = columns[order]
    zeros = columns == 0 if keep_zeros else None
    sweep = ColumnSweep(columns, factor.matrix, options.block_size)
    codes = _sweep(sweep, grids, zeros)
    return GptqResult(grids.assemble(codes, order), sweep.loss, factor.damp_percent, factor.damp)


def _sweep(sweep: ColumnSweep, grids: _Grids, zeros: torch.Tensor | None) -> torch.Tensor:
    """Round every column, and return the codes (in x out) in the order of the sweep."""
    codes = torch.empty(sweep.columns.shape, dtype=torch.uint8, device=sweep.columns.device)
    for block in sweep.blocks():
        for index in block:
            scale, zero = grids.at(index, sweep)
            code = round_to_codes(sweep.columns[index], scale, zero, grids.grid.bits)
            if zeros is not None:
                code = torch.where(zeros[index], zero, code)
            codes[index] = code
            sweep.settle(index, code.sub_(zero).mul_(scale))
    return codes


class _Grids:
    """Scales and zero points of all groups (groups x out), each row filled before its first column is rounded."""

    def __init__(self, columns: torch.Tensor, grid: Grid) -> None:
        self.grid = grid
        self.slices = list(grid.groups(len(columns)))
        self.scale = columns.new_empty(len(self.slices), columns.shape[1])
        self.zero = torch.empty_like(self.scale)
        self.group_at = [group for group, part in enumerate(self.slices) for _ in range(part.start, part.stop)]
        self.starts = {part.start: group for group, part in enumerate(self.slices)}

    def make_all(self, columns: torch.Tensor, order: torch.Tensor | None) -> None:
        """Static groups: of neighbours in the weight itself, in whatever order they are taken afterwards."""
        for group, part in enumerate(self.slices):
            self._make(group, columns[part])
        self.starts = {}
        if order is not None:
            self.group_at = [self.group_at[column] for column in order.tolist()]

    def at(self, index: int, sweep: ColumnSweep) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point (out,) for the column at `index` of the sweep."""
        group = self.starts.get(index)
        if group is not None:
            part = self.slices[group]
            self._make(group, sweep.current(part.start, part.stop))
        group = self.group_at[index]
        return self.scale[group], self.zero[group]

    def assemble(self, codes: torch.Tensor, order: torch.Tensor | None) -> QuantizedWeight:
        """The weight in its own order; `group_of` where groups were formed in another and neighbours don't share them."""
        group_of = None
        if order is not None:
            in_order = torch.empty_like(codes)
            in_order[order] = codes
            codes = in_order
            group_of = self._group_of(order)
        return QuantizedWeight(
            codes=codes.t().contiguous(),
            scale=self.scale.t().to(self.grid.scale_dtype).contiguous(),
            bits=self.grid.bits,
            group_size=self.grid.group_size,
            zero=None if self.grid.sym else self.zero.t().byte().contiguous(),
            group_of=group_of,
        )

    def _make(self, group: int, columns: torch.Tensor) -> None:
        self.scale[group], self.zero[group] = group_grid(columns.t(), self.grid)

    def _group_of(self, order: torch.Tensor) -> torch.Tensor | None:
        group_of = torch.empty(len(order), dtype=torch.int32, device=order.device)
        group_of[order] = torch.tensor(self.group_at, dtype=torch.int32, device=order.device)
        # neighbours' groups in rising order need no table
        return None if bool((group_of.diff() >= 0).all()) else group_of
