"""The Hessian of a linear layer's squared output error, and the triangular factor of its inverse, in one buffer.

For a layer y = W x and calibration inputs X (n x d) the Hessian is H = 2/n XᵀX, the same for every output row. GPTQ
(Frantar et al. 2022, arXiv:2210.17323) and SparseGPT (Frantar & Alistarh 2023, arXiv:2301.00774) read all they need of
its inverse from the upper Cholesky factor R of (H + λI)⁻¹ = RᵀR: row i of R, divided by its diagonal element, is row i
of the inverse after the columns before i have been eliminated.

Here H + λI = U Uᵀ with U upper triangular, and R = U⁻¹: no inverse of H is formed, and everything happens in H's memory,
panel by panel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

_PANEL = 64


class Hessian:
    """Adds up 2/n XᵀX over calibration inputs without keeping them, in float32 or float64."""

    def __init__(self, num_features: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        self._sum = torch.zeros(num_features, num_features, dtype=dtype, device=device)
        self.num_rows = 0

    def add(self, rows: torch.Tensor) -> None:
        """Inputs (n x d) of any floating type. Leave padding out: it would count as tokens."""
        exact = rows.detach().to(self._sum.dtype)
        self._sum.addmm_(exact.t(), exact)
        self.num_rows += len(rows)

    def take(self) -> torch.Tensor:
        """The Hessian (d x d), handed over for good: what follows may work in its memory. Raises ValueError if empty."""
        if self.num_rows == 0:
            raise ValueError("no calibration input reached this layer")
        hessian = self._sum.mul_(2 / self.num_rows)
        self._sum, self.num_rows = hessian.new_empty(0, 0), 0
        return hessian


class InverseFactor(NamedTuple):
    """`matrix` is R (d x d, upper triangular) with RᵀR = (H + damp I)⁻¹, columns in the order asked for.

    `dead` (d, bool, in the layer's own order) are the inputs that were always zero: H_ii = 0 was set to 1.
    `damp_percent` is the damping that it took, `damp` the number added to the diagonal.
    """

    matrix: torch.Tensor
    dead: torch.Tensor
    damp_percent: float
    damp: float


def inverse_factor(
    hessian: torch.Tensor, damp_percent: float, damp_auto_increment: float, order: torch.Tensor | None = None
) -> InverseFactor:
    """R of `hessian` (d x d, float32 or float64), whose memory it takes: the Hessian is gone afterwards.

    λ is damp_percent times the mean of the diagonal over the inputs that are not dead, so that nothing depends on the
    unit of X. If the Cholesky decomposition fails, damp_percent grows by damp_auto_increment until it works.
    `order` (d, int64) takes the columns in another order. Raises ValueError if H isn't finite, or if nothing below a
    damping of 1 works.
    """
    _check(hessian)
    diagonal = hessian.diagonal().clone()
    dead = diagonal == 0
    mean = float(diagonal[~dead].mean()) if not bool(dead.all()) else 1.0
    diagonal[dead] = 1
    if order is not None:
        _permute(hessian, order)
        diagonal = diagonal[order]
    damping = damp_percent
    while True:
        hessian.diagonal().copy_(diagonal + damping * mean)
        if _factorize(hessian):
            break
        if damp_auto_increment <= 0 or damping + damp_auto_increment >= 1:
            raise ValueError(
                f"the Cholesky decomposition of the {len(hessian)} x {len(hessian)} Hessian fails with a damping of "
                f"{damp_percent:g} to {damping:g} of its mean diagonal {mean:.3g} (smallest entry {diagonal.min():.3g})"
            )
        damping += damp_auto_increment
        _mirror_lower(hessian)
    _invert(hessian)
    return InverseFactor(hessian, dead, damping, damping * mean)


def _check(hessian: torch.Tensor) -> None:
    if hessian.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"the Hessian must be float32 or float64, got {hessian.dtype}")
    # a NaN or infinity anywhere reaches the sums
    if not bool(torch.isfinite(hessian.sum(dim=0)).all()):
        raise ValueError("the Hessian holds NaN or infinity: a calibration input was not finite, or overflowed")


def _panels(size: int) -> list[slice]:
    return [slice(start, min(start + _PANEL, size)) for start in range(0, size, _PANEL)]


def _permute(matrix: torch.Tensor, order: torch.Tensor) -> None:
    """Rows and columns of a square matrix in another order, in place."""
    for part in _panels(len(matrix)):
        matrix[part] = matrix[part].index_select(1, order)
    for part in _panels(len(matrix)):
        matrix[:, part] = matrix[:, part].index_select(0, order)


def _factorize(matrix: torch.Tensor) -> bool:
    """U of matrix = U Uᵀ into the upper triangle, from the last panel to the first; False if a pivot isn't positive.

    The strictly lower triangle keeps the matrix, so that another damping can be tried.
    """
    for part in reversed(_panels(len(matrix))):
        start, stop = part.start, part.stop
        panel = matrix[:stop, part] - matrix[:stop, stop:] @ matrix[part, stop:].t()
        # U Uᵀ is the usual L Lᵀ seen from the last row and column
        lower, failed = torch.linalg.cholesky_ex(panel[start:].flip(0, 1))
        if bool(failed) or not bool(torch.isfinite(lower).all()):
            return False
        tile = lower.flip(0, 1)
        matrix[part, part] = matrix[part, part].tril(-1) + tile
        matrix[:start, part] = torch.linalg.solve_triangular(tile.t(), panel[:start], upper=False, left=False)
    return True


def _mirror_lower(matrix: torch.Tensor) -> None:
    """Make a matrix symmetric again from its strictly lower triangle; the diagonal becomes zero."""
    for part in _panels(len(matrix)):
        tile = matrix[part, part].tril(-1)
        matrix[part, part] = tile + tile.t()
        matrix[part, part.stop :] = matrix[part.stop :, part].t()


def _invert(matrix: torch.Tensor) -> None:
    """U to U⁻¹ in place, from the last panel of rows to the first; what was below the diagonal becomes zero."""
    matrix.triu_()
    for part in reversed(_panels(len(matrix))):
        tile, rest = matrix[part, part], slice(part.stop, None)
        row = matrix[part, rest] @ matrix[rest, rest]
        matrix[part, rest] = torch.linalg.solve_triangular(tile, row, upper=True).neg_()
        identity = torch.eye(len(tile), dtype=tile.dtype, device=tile.device)
        tile.copy_(torch.linalg.solve_triangular(tile, identity, upper=True))
