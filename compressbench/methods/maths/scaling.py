"""Moving scale between activations and weights before they are quantized: SmoothQuant, and AWQ's searches.

Xiao et al. 2022, arXiv:2211.10438; Lin et al. 2023, arXiv:2306.00978. Every layer's input is divided by `scales` (in,)
and its weight's columns are multiplied by them, which changes nothing until something is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

CLIP_RATIOS = tuple(1 - step / 20 for step in range(10))
"""What AWQ tries: n_grid 20, max_shrink 0.5, the last not included."""

_SMALLEST = 1e-4  # AWQ's guard: features that were never active would get scales of zero
_BATCH_ELEMENTS = 2**22


def smooth_scales(activation_max: torch.Tensor, weight_max: torch.Tensor, alpha: float = 0.5) -> torch.Tensor:
    """SmoothQuant's scales (in,): max|X_j|^alpha / max|W_j|^(1 - alpha), W_j over all layers that share the input.

    Afterwards the maxima are (a w)^(1 - alpha) for activations and (a w)^alpha for weights. A feature whose activations
    or weights are all zero keeps scale 1.
    """
    scales = activation_max.pow(alpha) / weight_max.pow(1 - alpha)
    usable = (activation_max > 0) & (weight_max > 0) & scales.isfinite() & (scales > 0)
    return torch.where(usable, scales, torch.ones_like(scales))


def scale_columns(weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The weight (out x in) of a layer whose input is divided by scales (in,)."""
    return (weight * scales).to(weight.dtype)


def fold_into_norm(
    weight: torch.Tensor, bias: torch.Tensor | None, scales: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias (features,) of a LayerNorm or RMSNorm whose output is divided by scales.

    Not for norms that multiply by 1 + weight (Gemma's): fold 1 + weight there, and subtract 1 again.
    """
    return _divided(weight, scales), None if bias is None else _divided(bias, scales)


def fold_into_linear(
    weight: torch.Tensor, bias: torch.Tensor | None, scales: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight (out x in) and bias (out,) of a linear layer whose output is divided by scales (out,).

    Raises ValueError for another number of scales: with grouped-query attention o_proj has more inputs than v_proj has
    outputs, and nothing can be folded.
    """
    if scales.shape != weight.shape[:1]:
        raise ValueError(f"{len(scales)} scales don't fit the {len(weight)} outputs of the layer before")
    return _divided(weight, scales[:, None]), None if bias is None else _divided(bias, scales)


@dataclass(frozen=True)
class AwqScales:
    """The best scales (in,) of the grid, their exponent (None: all ones won), their loss and that of all ones."""

    scales: torch.Tensor
    alpha: float | None
    loss: float
    loss_at_ones: float


def awq_scales(
    mean_abs: torch.Tensor,
    loss: Callable[[torch.Tensor], float],
    n_grid: int = 20,
    weight_mean: torch.Tensor | None = None,
) -> AwqScales:
    """AWQ's grid search: scales mean|x|^alpha / √(max · min), alpha = 0, 1 / n_grid, .. below 1; the lowest loss wins.

    `loss(scales)` is the block's output error with scaled and quantized weights. All ones are always tried, so that the
    result is never worse than plain rounding, on the data that the loss sees. `weight_mean` (in,) turns on AutoAWQ's
    duo_scaling: mean|x|^alpha / weight_mean^(1 - alpha). Raises ValueError where even the loss of all ones isn't finite.
    """
    ones = torch.ones_like(mean_abs)
    at_ones = loss(ones)
    if not math.isfinite(at_ones):
        raise ValueError(f"the loss without scaling is {at_ones}")
    best = AwqScales(ones, None, at_ones, at_ones)
    for step in range(0 if weight_mean is not None else 1, n_grid):
        alpha = step / n_grid
        scales = _candidate(mean_abs, weight_mean, alpha)
        found = loss(scales)
        if found < best.loss:
            best = AwqScales(scales, alpha, found, at_ones)
    return best


def column_means(weights: Sequence[torch.Tensor], group_size: int) -> torch.Tensor:
    """`weight_mean` of awq_scales: mean over rows of |w| / max|w| of its quantization group, all layers together: (in,).

    weights: out x in each, sharing their input. group_size -1 is one group per row.
    """
    sums = torch.stack([_relative_magnitudes(weight, group_size).sum(dim=0) for weight in weights])
    return sums.sum(dim=0) / sum(len(weight) for weight in weights)


def awq_clip(
    weight: torch.Tensor,
    inputs: torch.Tensor,
    quantize: Callable[[torch.Tensor], torch.Tensor],
    group_size: int,
    ratios: Sequence[float] = CLIP_RATIOS,
) -> torch.Tensor:
    """AWQ's clipping maxima (out x groups): of max|w| · ratio, the one with the least output error of that group alone.

    `inputs` is a sample (rows x in) of what the layer (out x in) sees. `quantize` maps any rows of the matrix to their
    dequantized values, groups of `group_size` columns on their own. Ratio 1 comes first, so that no group's error rises.
    Rows are searched a few at a time: beyond weight and result, the memory doesn't grow with their number.
    """
    if ratios[0] != 1:
        raise ValueError(f"the first ratio must be 1, got {ratios[0]}")
    gram = _group_grams(inputs, group_size)
    batch = max(1, _BATCH_ELEMENTS // weight.shape[1])
    return torch.cat([_clip_rows(rows, gram, quantize, ratios) for rows in torch.split(weight.detach(), batch)])


def clip_groups(weight: torch.Tensor, maxima: torch.Tensor, group_size: int) -> torch.Tensor:
    """The weight (out x in) with every group's values held within ± its maximum (out x groups)."""
    blocks = _blocks(weight, group_size)
    limit = maxima.to(weight.dtype)[:, :, None]
    return blocks.clamp(-limit, limit).flatten(1)[:, : weight.shape[1]]


def _divided(tensor: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return (tensor / scales).to(tensor.dtype)


def _candidate(mean_abs: torch.Tensor, weight_mean: torch.Tensor | None, alpha: float) -> torch.Tensor:
    scales = mean_abs.pow(alpha)
    if weight_mean is not None:
        scales = scales / (weight_mean.pow(1 - alpha) + _SMALLEST)
    scales = scales.clamp(min=_SMALLEST)
    return scales / (scales.max() * scales.min()).sqrt()


def _blocks(matrix: torch.Tensor, group_size: int) -> torch.Tensor:
    """rows x columns to rows x groups x group_size, a shorter last group filled up with zeros."""
    columns = matrix.shape[1]
    size = columns if group_size == -1 else group_size
    return functional.pad(matrix, (0, -columns % size)).reshape(len(matrix), -1, size)


def _relative_magnitudes(weight: torch.Tensor, group_size: int) -> torch.Tensor:
    blocks = _blocks(weight.detach().abs(), group_size)
    largest = blocks.amax(dim=2, keepdim=True)
    relative = blocks / torch.where(largest == 0, torch.ones_like(largest), largest)
    return relative.flatten(1)[:, : weight.shape[1]]


def _group_grams(inputs: torch.Tensor, group_size: int) -> torch.Tensor:
    """XᵀX / rows of every group's columns: groups x group_size x group_size. A group's output error is dᵀ gram d."""
    blocks = _blocks(inputs.to(torch.promote_types(inputs.dtype, torch.float32)), group_size).transpose(0, 1)
    return blocks.transpose(1, 2) @ blocks / len(inputs)


def _clip_rows(
    rows: torch.Tensor,
    gram: torch.Tensor,
    quantize: Callable[[torch.Tensor], torch.Tensor],
    ratios: Sequence[float],
) -> torch.Tensor:
    """The best maxima (rows x groups) of some rows of the weight."""
    group_size = gram.shape[1]
    largest = _blocks(rows.abs(), group_size).amax(dim=2)
    best, lowest = largest, torch.full_like(largest, math.inf, dtype=gram.dtype)
    for ratio in ratios:
        maxima = largest * ratio
        moved = _blocks((quantize(clip_groups(rows, maxima, group_size)) - rows).to(gram.dtype), group_size)
        error = ((moved.transpose(0, 1) @ gram).transpose(0, 1) * moved).sum(dim=2)
        best = torch.where(error < lowest, maxima, best)
        lowest = torch.minimum(error, lowest)
    return best
