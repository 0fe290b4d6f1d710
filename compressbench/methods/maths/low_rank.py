"""Low-rank factors of a weight matrix that lose least on the layer's inputs (SVD-LLM).

Wang, Zheng, Wan & Zhang 2024, arXiv:2403.07378.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

# a feature of which no more than this is its own is a sum of others, up to rounding
_DEPENDENT = 1e-12
# so little changes no direction that inputs take, and lets float64 tell apart those that they don't take
_RELATIVE_DAMPING = 1e-6


@dataclass(frozen=True)
class LowRank:
    """weight ≈ left (out x rank, orthonormal columns) @ right (rank x in).

    `discarded_energy` is the sum of the squared singular values left out. It equals ‖X (W - left right)ᵀ‖², with
    `damping` · ‖W - left right‖² on top; without inputs it is ‖W - left right‖². `damping` was added to the diagonal of
    a gram matrix that was singular, else it is 0.
    """

    left: torch.Tensor
    right: torch.Tensor
    discarded_energy: float
    damping: float


def low_rank(weight: torch.Tensor, gram: torch.Tensor | None, rank: int) -> LowRank:
    """The best factors of weight (out x in) for inputs X with gram = XᵀX (in x in); gram None is the plain SVD.

    With gram = L Lᵀ (Cholesky) the error on the inputs is ‖(W - Wk) L‖, so that truncating the SVD of W L is optimal.
    U Uᵀ W is that truncation with L divided out again, without a division. All in float64, the factors in weight's type.
    Raises ValueError for a rank outside 1 .. min(out, in), and for a gram matrix that is zero or not finite.
    """
    if not 1 <= rank <= min(weight.shape):
        raise ValueError(f"the rank must lie in 1 .. {min(weight.shape)}, got {rank}")
    exact = weight.detach().double()
    whitening, damping = (None, 0.0) if gram is None else _cholesky(gram.detach().double())
    whitened = exact if whitening is None else exact @ whitening
    directions, singular, _ = torch.linalg.svd(whitened, full_matrices=False)
    left = directions[:, :rank]
    discarded = float(singular[rank:].square().sum())
    return LowRank(left.to(weight.dtype), (left.T @ exact).to(weight.dtype), discarded, damping)


def rank_for(ratio: float, out_features: int, in_features: int) -> int:
    """The largest rank whose two factors have at most (1 - ratio) of the dense matrix's parameters.

    Raises ValueError if that is below 1, and for a negative ratio: factors of a rank above out * in / (out + in) are
    bigger than the matrix.
    """
    dense = out_features * in_features
    if ratio < 0:
        raise ValueError(f"factors with {1 - ratio:g} of the parameters would be bigger than the dense matrix")
    rank = int((1 - ratio) * dense / (out_features + in_features) + 1e-9)
    if rank < 1:
        raise ValueError(f"not even rank 1 of {out_features} x {in_features} saves {ratio:g} of the parameters")
    return rank


def _cholesky(gram: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The lower factor, and what had to be added to the diagonal for there to be one."""
    mean = float(gram.diagonal().mean())
    if not 0 < mean < math.inf:
        raise ValueError(f"the inputs' mean square is {mean:g}: the layer saw none, or some that aren't finite")
    factor, failed = torch.linalg.cholesky_ex(gram)
    # what no other feature explains of a feature's energy
    own = factor.diagonal().square() / gram.diagonal()
    if not bool(failed) and float(own.min()) > _DEPENDENT:
        return factor, 0.0
    damping = _RELATIVE_DAMPING * mean
    damped = gram + damping * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.cholesky(damped), damping
