"""Uniform grids of 2 to 8 bits, and round-to-nearest (RTN) onto them. Pure functions on tensors.

The conventions are those of the GPTQ reference: the range of a group includes 0, and a zero point is an integer, so that
a weight of zero stays exactly zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from compressbench.models.quantized_weight import QuantizedWeight

# of the search for a narrower range (Frantar et al. 2022, arXiv:2210.17323, its code): |error| to this power, ranges of
# 1, 0.99, ... 0.21 of the whole
_MSE_NORM, _MSE_STEPS, _MSE_LARGEST_SHRINK = 2.4, 100, 0.8


@dataclass(frozen=True)
class Grid:
    """What codes stand for: 2**bits equal steps per group of `group_size` neighbouring input features (-1: a whole row).

    `sym` centres the range on zero, and then no zero point is stored. `mse` searches a narrower range with less error.
    Scales are stored in `scale_dtype`, and rounded to it before codes are made, so that what is used is what is stored.
    """

    bits: int
    group_size: int = -1
    sym: bool = False
    mse: bool = False
    scale_dtype: torch.dtype = torch.float16

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits must lie in 2 .. 8, got {self.bits}")
        if self.group_size != -1 and self.group_size < 1:
            raise ValueError(f"group_size must be -1 (a whole row) or positive, got {self.group_size}")
        if not self.scale_dtype.is_floating_point:
            raise ValueError(f"scale_dtype must be a floating-point type, got {self.scale_dtype}")

    @property
    def largest_code(self) -> int:
        return (1 << self.bits) - 1

    def groups(self, num_columns: int) -> Iterator[slice]:
        """The columns of each group; the last one may be shorter."""
        size = num_columns if self.group_size == -1 else self.group_size
        for start in range(0, num_columns, size):
            yield slice(start, min(start + size, num_columns))


def rtn(weight: torch.Tensor, grid: Grid) -> QuantizedWeight:
    """Every weight (out x in) to the nearest value of its group's grid, off by at most half a step.

    Computed in float32, or in float64 if that is given. Raises ValueError where `group_grid` does.
    """
    exact = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    grids = []
    for columns in grid.groups(weight.shape[1]):
        scale, zero = group_grid(exact[:, columns], grid)
        codes[:, columns] = round_to_codes(exact[:, columns], scale[:, None], zero[:, None], grid.bits).byte()
        grids.append((scale, zero))
    return QuantizedWeight(
        codes=codes,
        scale=torch.stack([scale for scale, _ in grids], dim=1),
        bits=grid.bits,
        group_size=grid.group_size,
        zero=None if grid.sym else torch.stack([zero for _, zero in grids], dim=1),
    )


def round_to_codes(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int) -> torch.Tensor:
    """clamp(round(values / scale) + zero, 0, 2**bits - 1), in the type of `values`, to which the others are broadcast.

    (codes - zero) * scale are the values again.
    """
    codes = values / scale.to(values.dtype)
    return codes.round_().add_(zero.to(values.dtype)).clamp_(0, 2**bits - 1)


def group_grid(columns: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale (out, in grid.scale_dtype) and zero point (out, uint8) of one group of columns (out x g).

    asym: scale = (max - min) / (2**b - 1), zero = round(-min / scale). sym: scale = 2 max|w| / (2**b - 1), zero = 2**(b-1).
    The division is made in float64, because a float32 one rounds differently on CPU and GPU. A group of zeros gets scale
    1; a scale too small for its type becomes the smallest that there is. Raises ValueError if a weight is NaN or
    infinite, or if a scale is too large for its type: rounding to another grid in silence would be worse.
    """
    low = columns.amin(dim=1).double().clamp_(max=0)
    high = columns.amax(dim=1).double().clamp_(min=0)
    if grid.sym:
        high = torch.maximum(high, -low)
        low = -high
    scale, zero = _grid_of_range(low, high, grid)
    if not torch.isfinite(scale).all():
        raise ValueError(
            f"a group spans {low.min():.3g} .. {high.max():.3g}: its weights must be finite, "
            f"and its scale must fit into {grid.scale_dtype}"
        )
    return _with_least_error(columns, (low, high), grid) if grid.mse else (scale, zero)


def _grid_of_range(low: torch.Tensor, high: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    limits = torch.finfo(grid.scale_dtype)
    scale = ((high - low) / grid.largest_code).to(grid.scale_dtype)
    scale = torch.where(scale == 0, limits.tiny * limits.eps, scale)
    scale = torch.where(high == low, 1, scale).to(grid.scale_dtype)
    if grid.sym:
        return scale, torch.full_like(low, 2 ** (grid.bits - 1), dtype=torch.uint8)
    return scale, (-low / scale.double()).round_().clamp_(0, grid.largest_code).byte()


def _with_least_error(
    columns: torch.Tensor, limits: tuple[torch.Tensor, torch.Tensor], grid: Grid
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a hundred shrunken ranges down to a fifth, row by row the widest with the least sum of |error|**2.4."""
    # sums over another memory layout would round differently, and rows could choose differently by that alone
    columns = columns.contiguous()
    least = torch.full_like(columns[:, 0], torch.inf)
    best_scale, best_zero = _grid_of_range(*limits, grid)
    for step in range(int(_MSE_LARGEST_SHRINK * _MSE_STEPS)):
        shrink = 1 - step / _MSE_STEPS
        scale, zero = _grid_of_range(limits[0] * shrink, limits[1] * shrink, grid)
        error = _error(columns, scale[:, None], zero[:, None], grid.bits)
        better = error < least
        least = torch.where(better, error, least)
        best_scale = torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero, best_zero)
    return best_scale, best_zero


def _error(columns: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int) -> torch.Tensor:
    values = round_to_codes(columns, scale, zero, bits)
    values.sub_(zero).mul_(scale).sub_(columns)
    return values.abs_().pow_(_MSE_NORM).sum(dim=1)
