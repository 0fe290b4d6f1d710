"""LLM.int8(): products of 8-bit integers for ordinary features, of full-precision numbers for outlier features.

Dettmers, Lewis, Belkada & Zettlemoyer 2022, arXiv:2208.07339. The arithmetic of the paper, kept exact: a reference for
implementations, not a fast one.
"""

from __future__ import annotations

import torch

from compressbench.methods.maths.integers import per_channel_symmetric


def outlier_features(x: torch.Tensor, threshold: float = 6.0) -> torch.Tensor:
    """Mask (in,) of the columns of x (rows x in) that hold a magnitude above `threshold`; 0 switches the search off."""
    if threshold == 0:
        return torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
    return (x.abs() > threshold).any(dim=0)


def int8_matmul_with_outliers(
    x: torch.Tensor, weight_codes: torch.Tensor, weight_scale: torch.Tensor, threshold: float = 6.0
) -> torch.Tensor:
    """x (rows x in) times the transpose of weight_codes (out x in, int8) * weight_scale (out,): rows x out, in x's type.

    Rows of x are rounded to int8 by their own max|x| over the features that are no outliers; products of integers are
    exact. Outlier features are multiplied as they are with the dequantized weights. threshold 0 is plain vector-wise
    int8, and so is one above all of x; where every feature is an outlier, the product is the dense one.

    bitsandbytes also takes magnitudes equal to `threshold` for outliers, and lets the ordinary values in an outlier
    feature count towards the max|x| of their row. Computed in float64 and rounded once.
    """
    outliers = outlier_features(x, threshold)
    codes, row_scale = per_channel_symmetric(x.masked_fill(outliers, 0))
    weight = weight_codes.double()
    integers = codes.double() @ weight.T
    full = x.double()[:, outliers] @ weight[:, outliers].T
    return ((integers * row_scale.double()[:, None] + full) * weight_scale.double()).to(x.dtype)
