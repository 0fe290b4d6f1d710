"""Half-quadratic quantization (HQQ): zero points chosen by the weights alone, without calibration data.

Badri & Shaji 2023, https://mobiusml.github.io/hqq_blog.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from compressbench.models.quantized_weight import QuantizedWeight


@dataclass(frozen=True)
class HalfQuadratic:
    """The solver's options, under the paper's names and with its defaults.

    Rounding errors up to beta**(-1 / (2 - p)), 0.17 by default, are no outliers. Where all are smaller, as with most
    trained models' weights, the zero moves by the mean error, and p matters only to the decision when to stop.
    """

    iterations: int = 20
    p: float = 0.7
    beta: float = 10.0
    kappa: float = 1.01


_SOLVER = HalfQuadratic()


def hqq(
    weight: torch.Tensor,
    *,
    bits: int,
    group_size: int = 64,
    solver: HalfQuadratic = _SOLVER,
    scale_dtype: torch.dtype = torch.float16,
) -> QuantizedWeight:
    """Quantize weight (out x in) so that the sum of |W - (codes - zero) * scale|^p is small, by moving the zeros alone.

    Groups run along in_features; group_size -1 is one group per row, and the last group may be shorter. Scale and zero
    (out x groups) are stored as `scale_dtype`, and the codes are the nearest ones for the stored values.
    `solver.iterations` 0 gives min/max round-to-nearest with a floating zero. Raises ValueError for bits outside 1 .. 8,
    for weights that aren't finite, and where a scale is too large for `scale_dtype`.
    """
    return hqq_with_errors(weight, bits=bits, group_size=group_size, solver=solver, scale_dtype=scale_dtype)[0]


def hqq_with_errors(
    weight: torch.Tensor,
    *,
    bits: int,
    group_size: int = 64,
    solver: HalfQuadratic = _SOLVER,
    scale_dtype: torch.dtype = torch.float16,
) -> tuple[QuantizedWeight, list[float]]:
    """As `hqq`, with the sum of |error|^p at the start and after every iteration, which never rises.

    The first step after which the error of the whole matrix has not fallen is not taken and ends the search. (The
    authors' code judges by the mean |error| instead, and keeps that last step.)
    """
    problem = _Problem.of(weight, bits, group_size)
    scale, zero = _min_max(problem, scale_dtype)
    codes, error = problem.round(scale, zero, solver.p)
    errors, beta = [error], solver.beta
    for _ in range(solver.iterations):
        candidate = problem.next_zero(codes, scale, zero, replace(solver, beta=beta)).to(scale_dtype)
        new_codes, error = problem.round(scale, candidate, solver.p)
        if not error < errors[-1]:
            break
        codes, zero, beta = new_codes, candidate, beta * solver.kappa
        errors.append(error)
    whole = codes.flatten(1)[:, : weight.shape[1]].to(torch.uint8).contiguous()
    return QuantizedWeight(whole, scale[..., 0], bits, group_size, zero=zero[..., 0]), errors


def shrink(residual: torch.Tensor, beta: float, p: float) -> torch.Tensor:
    """The generalized soft threshold sign(x) · max(|x| - |x|^(p - 1) / beta, 0), elementwise; 0 stays 0."""
    size = residual.abs()
    return residual.sign() * (size - size.pow(p - 1) / beta).clamp(min=0)


@dataclass(frozen=True)
class _Problem:
    """The weights as out x groups x group, and which places hold one; everything per group is out x groups x 1."""

    weight: torch.Tensor
    inside: torch.Tensor
    levels: int

    @classmethod
    def of(cls, weight: torch.Tensor, bits: int, group_size: int) -> _Problem:
        if not 1 <= bits <= 8:
            raise ValueError(f"bits must lie in 1 .. 8, got {bits}")
        precise = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
        columns = weight.shape[1]
        size = columns if group_size == -1 else group_size
        missing = -columns % size
        # repeated weights leave a group's smallest and largest as they are
        padded = functional.pad(precise[None], (0, missing), mode="replicate")[0] if missing else precise
        inside = torch.arange(columns + missing, device=weight.device) < columns
        return cls(padded.view(len(padded), -1, size), inside.view(1, -1, size).to(precise.dtype), 2**bits - 1)

    def round(self, scale: torch.Tensor, zero: torch.Tensor, p: float) -> tuple[torch.Tensor, float]:
        """The nearest codes, still floating, and the sum of |error|^p."""
        dtype = self.weight.dtype
        codes = (self.weight / scale.to(dtype) + zero.to(dtype)).round().clamp(0, self.levels)
        size = (self.weight - self._values(codes, scale, zero)).abs()
        return codes, float((size.pow(p) * self.inside).sum(dtype=torch.float64))

    def next_zero(
        self, codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, solver: HalfQuadratic
    ) -> torch.Tensor:
        """Both half steps: what of the residual counts as an outlier, and the zero that fits the rest best."""
        outliers = shrink(self.weight - self._values(codes, scale, zero), solver.beta, solver.p)
        fitting = codes - (self.weight - outliers) / scale.to(codes.dtype)
        return (fitting * self.inside).sum(dim=2, keepdim=True) / self.inside.sum(dim=2, keepdim=True)

    def _values(self, codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        return (codes - zero.to(codes.dtype)) * scale.to(codes.dtype)


def _min_max(problem: _Problem, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero that put a group's smallest weight on code 0 and its largest on the last, as they will be stored.

    A group that lies far from 0 gets a coarser scale: its zero must stay so small that `dtype` holds it to half a step.
    Raises ValueError for weights that aren't finite, or whose scale is too large for `dtype`.
    """
    low = problem.weight.amin(dim=2, keepdim=True).double()
    high = problem.weight.amax(dim=2, keepdim=True).double()
    scale = torch.maximum((high - low) / problem.levels, low.abs() * (torch.finfo(dtype).eps / 2)).to(dtype)
    if not bool(scale.isfinite().all()):
        raise ValueError(f"the weights must be finite, and their scales must fit into {dtype}")
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return scale, (-low / scale.double()).to(dtype)
