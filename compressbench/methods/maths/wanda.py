"""Wanda: a weight counts as much as its magnitude times the norm of its input.

The masks are those of compressbench.methods.maths.masks per output row (`keep_largest_per_row`, `keep_n_of_m`).
"""

from __future__ import annotations

import torch

_ROWS_AT_ONCE = 256


class ColumnNorms:
    """Adds up ‖X_j‖₂ of every input feature over calibration inputs, in float64."""

    def __init__(self, num_features: int, device: str = "cpu") -> None:
        self._squares = torch.zeros(num_features, dtype=torch.float64, device=device)
        self.num_rows = 0

    def add(self, rows: torch.Tensor) -> None:
        """Inputs (n x d) of any floating type. Leave padding out: it would count as tokens."""
        # a few rows at a time: the norm in float64 makes a float64 copy of them
        for part in torch.split(rows.detach(), _ROWS_AT_ONCE):
            self._squares += torch.linalg.vector_norm(part, dim=0, dtype=torch.float64).square()
        self.num_rows += len(rows)

    def norms(self) -> torch.Tensor:
        """‖X_j‖₂ (d, float64) of all inputs so far. Raises ValueError if there were none."""
        if self.num_rows == 0:
            raise ValueError("no calibration input reached this layer")
        return self._squares.sqrt()


def wanda_scores(weight: torch.Tensor, column_norms: torch.Tensor) -> torch.Tensor:
    """|w_ij| ‖X_j‖₂ (out x in, at least float32), to be compared within an output row (Sun et al. 2023, arXiv:2306.11695).

    `column_norms` (in,) may be in any unit: a common factor changes no mask. Raises ValueError if one isn't finite.
    """
    if not bool(torch.isfinite(column_norms).all()):
        raise ValueError("a column's norm is NaN or infinite: a calibration input was not finite")
    precise = torch.promote_types(weight.dtype, torch.float32)
    return weight.detach().abs().to(precise) * column_norms.to(precise)
