"""Which bytes of a model's stored tensors one pass reads, each byte once: by address, because views and ties share them."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator

import torch

from compressbench.models.stored_weights import plain


class ReadBytes:
    """Address ranges that were read, of `stored` tensors; what has no address of its own is added by a key.

    What is read twice (tied tensors, layers used again) counts once: a pass can't do with less.
    """

    def __init__(self, stored: Iterable[torch.Tensor]) -> None:
        self._ranges = sorted((each.data_ptr(), each.data_ptr() + each.nbytes) for each in stored if each.numel())
        self._starts = [start for start, _ in self._ranges]
        self._read = set[tuple[int, int]]()
        self._without_address = dict[str, int]()

    def add_tensor(self, tensor: torch.Tensor) -> None:
        """All elements of a tensor, which may be a view; one that isn't part of the stored ones is left out."""
        if tensor.numel() and self._holds(tensor):
            self._read.update(_ranges(tensor))

    def add_rows(self, table: torch.Tensor, rows: torch.Tensor) -> None:
        """The different rows of a table (along its first dimension) whose numbers are in `rows`."""
        if table.numel() and self._holds(table):
            for row in torch.unique(rows).tolist():
                self._read.update(_ranges(table[int(row)]))

    def add_bytes(self, key: str, num_bytes: int) -> None:
        """Bytes that live where their address can't be seen: inside of a kernel library's own form."""
        self._without_address[key] = num_bytes

    @property
    def total(self) -> int:
        """The length of the union of all ranges."""
        total = sum(self._without_address.values())
        reached = 0
        for start, stop in sorted(self._read):
            total += max(0, stop - max(start, reached))
            reached = max(reached, stop)
        return total

    def _holds(self, tensor: torch.Tensor) -> bool:
        at = bisect.bisect_right(self._starts, tensor.data_ptr()) - 1
        return at >= 0 and tensor.data_ptr() < self._ranges[at][1]


def plain_tensors(value: object) -> list[torch.Tensor]:
    """The plain tensors inside of a tensor: itself, or the parts of a subclass, of quantized and of sparse ones."""
    return list(plain({"": value})[0].values())


def _ranges(tensor: torch.Tensor) -> Iterator[tuple[int, int]]:
    """The addresses of a tensor's elements: one range if it has no gaps, whatever the order of its dimensions."""
    sizes = [(stride, size) for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1 and stride]
    count = 1
    for stride, size in sorted(sizes):
        if stride != count:
            break
        count *= size
    else:
        yield tensor.data_ptr(), tensor.data_ptr() + count * tensor.element_size()
        return
    widest = max(range(tensor.dim()), key=lambda dim: tensor.stride(dim) if tensor.shape[dim] > 1 else -1)
    for part in tensor.unbind(widest):
        yield from _ranges(part)
