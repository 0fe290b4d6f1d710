"""SparseGPT: pruning column by column, the weights that stay making up for those that go."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from compressbench.methods.maths.column_sweep import ColumnSweep, transposed_copy
from compressbench.methods.maths.inverse_hessian import inverse_factor
from compressbench.methods.maths.masks import keep_largest, keep_n_of_m


@dataclass(frozen=True)
class SparseGptOptions:
    """Either `sparsity`, the fraction of weights that go, or `num_zeros` of every `group` neighbours (2:4 is 2 of 4).

    With `sparsity` the mask is chosen block by block, so that `block_size` decides what is compared with what; with
    groups it matters to speed only. Damping as in GPTQ.
    """

    sparsity: float | None = None
    num_zeros: int = 0
    group: int = 0
    block_size: int = 128
    damp_percent: float = 0.01
    damp_auto_increment: float = 0.0025

    def __post_init__(self) -> None:
        if (self.sparsity is None) == (self.group == 0):
            raise ValueError("give sparsity, or num_zeros and group, and not both")
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must lie in [0, 1), got {self.sparsity}")
        if self.sparsity is None and not 0 < self.num_zeros < self.group:
            raise ValueError(f"num_zeros must lie between 1 and group - 1, got {self.num_zeros} of {self.group}")


@dataclass(frozen=True)
class SparseResult:
    """`weight` (out x in, the type it came in) is zero where `mask` (True: kept; left empty after work in place) is False.

    `loss` is Σ w² / 2d² over what was pruned, w as it was then and d the factor's diagonal: to rounding ½ tr(ΔW H_λ ΔWᵀ),
    H_λ being the Hessian with `damp` on its diagonal. `damp_percent` is the damping that it took.
    """

    weight: torch.Tensor
    mask: torch.Tensor
    loss: float
    damp_percent: float
    damp: float


def sparsegpt(
    weight: torch.Tensor, hessian: torch.Tensor, options: SparseGptOptions, *, in_place: bool = False
) -> SparseResult:
    """Prune `weight` (out x in) with `hessian` (in x in) of its inputs, Frantar & Alistarh 2023 (arXiv:2301.00774).

    The weights of least w² / d² go: exactly floor(sparsity * out * in) of them, or `num_zeros` of every group, chosen when
    the block or group is reached, with the weights as they are then. Weights of dead inputs (H_ii = 0) become 0 whether
    masked or not. Works in the Hessian's type and memory: the Hessian is gone afterwards. The weight is left alone, unless
    `in_place`: then it becomes the result, without a copy where it has the Hessian's type and is stored column by column.
    Raises ValueError as `inverse_factor` does, or if the columns are no multiple of the group.
    """
    if options.group and weight.shape[1] % options.group:
        raise ValueError(f"{weight.shape[1]} columns are not a multiple of {options.group}")
    factor = inverse_factor(hessian, options.damp_percent, options.damp_auto_increment)
    is_ready = in_place and weight.dtype == hessian.dtype and weight.t().is_contiguous()
    columns = weight.t() if is_ready else transposed_copy(weight, hessian.dtype)
    columns[factor.dead] = 0
    sweep = ColumnSweep(columns, factor.matrix, options.block_size)
    masks: list[torch.Tensor] = []
    # a mask for a block, or for a group, is chosen when its first column is reached
    width = options.group or options.block_size
    for block in sweep.blocks():
        for index in block:
            if index % width == 0:
                masks = [] if in_place else masks
                masks.append(_keep(sweep, slice(index, min(index + width, len(columns))), options))
            sweep.settle(index, columns[index] * masks[-1][index % width])
    kept = weight.copy_(columns.t()) if in_place else columns.t().to(weight.dtype).contiguous()
    mask = torch.empty(0, dtype=torch.bool) if in_place else torch.cat(masks).t()
    return SparseResult(kept, mask, sweep.loss, factor.damp_percent, factor.damp)


def _keep(sweep: ColumnSweep, part: slice, options: SparseGptOptions) -> torch.Tensor:
    """The mask (part x out) of the largest w² / d²."""
    saliency = sweep.current(part.start, part.stop) / sweep.factor.diagonal()[part, None]
    scores = saliency.square_()
    if options.sparsity is None:
        return keep_n_of_m(scores.t(), options.num_zeros, options.group).t()
    # floors of the running total, so that the zeros of all blocks add up to the floor of the whole
    rows = scores.shape[1]
    before, after = (int(options.sparsity * rows * end + 1e-9) for end in (part.start, part.stop))
    return keep_largest(scores, (after - before) / scores.numel())
