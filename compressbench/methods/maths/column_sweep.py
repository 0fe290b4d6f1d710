"""The loop that GPTQ and SparseGPT share: one column after another gets its final value, and its error is spread.

Optimal Brain Surgeon (Hassibi & Stork 1993) for one column at a time: if column i is off by e, the output error grows
least if every later column j changes by -e R_ij / R_ii, R being the factor of compressbench.methods.maths.inverse_hessian.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch


class ColumnSweep:
    """Works in place on `columns` (in x out: a column of the weight is a contiguous row here).

    Within a block of `block_size` columns errors are spread at once; columns behind it get those of the whole block
    together, in one matrix product (GPTQ's lazy batch). In exact arithmetic the block size changes nothing.
    """

    def __init__(self, columns: torch.Tensor, factor: torch.Tensor, block_size: int) -> None:
        if block_size < 1:
            raise ValueError(f"block_size must be positive, got {block_size}")
        self.columns, self.factor, self.block_size = columns, factor, block_size
        self.diagonal: list[float] = factor.diagonal().tolist()
        self.loss = 0.0
        self._start = self._stop = 0
        self._errors = columns.new_empty(min(block_size, len(columns)), columns.shape[1])

    def blocks(self) -> Iterator[range]:
        """The columns of one block after another; `settle` each before asking for the next block."""
        for start in range(0, len(self.columns), self.block_size):
            self._start, self._stop = start, min(start + self.block_size, len(self.columns))
            yield range(start, self._stop)
            self._finish_block()

    def settle(self, index: int, value: torch.Tensor) -> None:
        """Column `index` becomes `value` (out,); later columns of the block make up for the error."""
        error = self._errors[index - self._start]
        torch.sub(self.columns[index], value, out=error).div_(self.diagonal[index])
        self.columns[index] = value
        later = slice(index + 1, self._stop)
        self.columns[later].addr_(self.factor[index, later], error, alpha=-1)

    def current(self, first: int, last: int) -> torch.Tensor:
        """Columns first .. last (last - first x out) with every error so far spread, also behind the block.

        Call it before column `first` is settled. A view where nothing is pending: don't write to it.
        """
        if last <= self._stop or first == self._start:
            return self.columns[first:last]
        done, behind = slice(self._start, first), slice(self._stop, last)
        pending = self.factor[done, behind].t() @ self._errors[: first - self._start]
        return torch.cat([self.columns[first : self._stop], self.columns[behind] - pending])

    def _finish_block(self) -> None:
        errors = self._errors[: self._stop - self._start]
        self.loss += float(torch.linalg.vector_norm(errors, dtype=torch.float64)) ** 2 / 2
        block, behind = slice(self._start, self._stop), slice(self._stop, None)
        self.columns[behind].addmm_(self.factor[block, behind].t(), errors, alpha=-1)


def transposed_copy(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """weight (out x in) as a new contiguous in x out matrix, whatever its own layout and type."""
    columns = torch.empty(weight.shape[1], weight.shape[0], dtype=dtype, device=weight.device)
    return columns.copy_(weight.detach().t())
