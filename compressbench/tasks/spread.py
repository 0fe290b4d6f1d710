"""Which samples of a data set a workload is made of, and running tokens in its exact shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressbench.core.errors import DataError
from compressbench.core.protocols import Batch
from compressbench.models.handle import ModelHandle
from compressbench.tasks.batching import require_positions

if TYPE_CHECKING:
    import torch

_DISTINCT_INPUTS = 64


def num_workload_batches(num_samples: int, batch_size: int) -> int:
    """As many as hold 64 distinct inputs, or all samples where there are fewer; at least one."""
    return max(1, min(num_samples // batch_size, -(-_DISTINCT_INPUTS // batch_size)))


def spread(num_samples: int, count: int) -> list[int]:
    """Which samples a workload of `count` has: evenly over all, for data sets are often sorted by label."""
    return [(index * num_samples // count) % num_samples for index in range(count)]


def workload_samples(num_samples: int, batch_size: int) -> list[list[int]]:
    """Which samples each batch of a workload has."""
    count = num_workload_batches(num_samples, batch_size)
    chosen = spread(num_samples, count * batch_size)
    return [chosen[index * batch_size : (index + 1) * batch_size] for index in range(count)]


def shaped_batches(
    handle: ModelHandle, tokens: torch.Tensor, shape: tuple[int, int], what: str, where: str
) -> list[Batch]:
    """Tokens one after the other, cut into inputs of `shape` (batch size x sequence length).

    Raises ModelError for more tokens than the model reads at once, and DataError if `what` of `where` doesn't fill one.
    """
    batch_size, sequence_length = shape
    require_positions(handle, sequence_length, "Lower workload.sequence_length.")
    size = batch_size * sequence_length
    if len(tokens) < size:
        raise DataError(
            f"{what} {len(tokens)} tokens and one batch of the workload needs {size}",
            where=where,
            do="Lower workload.batch_size or workload.sequence_length.",
        )
    count = num_workload_batches(len(tokens) // sequence_length, batch_size)
    parts = tokens[: count * size].view(count, batch_size, sequence_length)
    return [{"input_ids": part, "attention_mask": part.new_ones(part.shape)} for part in parts]
