"""Which weights stay. A mask is True where a weight is kept; ties are broken by position, so counts are exact and masks
of growing sparsity are nested.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def keep_largest(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Mask over one group of any shape: the floor(sparsity * n) smallest scores go."""
    flat = scores.flatten()
    order = flat.argsort(stable=True)
    mask = torch.ones_like(flat, dtype=torch.bool)
    mask[order[: int(sparsity * flat.numel() + 1e-9)]] = False
    return mask.view_as(scores)


def keep_largest_per_row(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Mask of a matrix (rows x columns) in which every row loses floor(sparsity * columns) of its smallest scores."""
    order = scores.argsort(dim=1, stable=True)
    mask = torch.ones_like(scores, dtype=torch.bool)
    return mask.scatter_(1, order[:, : int(sparsity * scores.shape[1] + 1e-9)], False)


def keep_largest_overall(scores: Sequence[torch.Tensor], sparsity: float) -> list[torch.Tensor]:
    """Masks of several tensors under one threshold for all of them together."""
    joined = keep_largest(torch.cat([score.flatten() for score in scores]), sparsity)
    parts = torch.split(joined, [score.numel() for score in scores])
    return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]


def keep_n_of_m(scores: torch.Tensor, num_zeros: int, group: int) -> torch.Tensor:
    """Mask in which `num_zeros` of every `group` neighbouring columns go (2:4 is num_zeros=2, group=4).

    Raises ValueError if the number of columns isn't a multiple of `group`.
    """
    rows, columns = scores.shape
    if columns % group:
        raise ValueError(f"{columns} columns are not a multiple of {group}")
    blocks = scores.reshape(rows * columns // group, group)
    return keep_largest_per_row(blocks, num_zeros / group).view_as(scores)
