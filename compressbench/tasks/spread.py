"""Which samples of a data set a workload is made of."""

from __future__ import annotations

_DISTINCT_INPUTS = 64


def num_workload_batches(num_samples: int, batch_size: int) -> int:
    """As many as hold 64 distinct inputs, or all samples where there are fewer; at least one."""
    return max(1, min(num_samples // batch_size, -(-_DISTINCT_INPUTS // batch_size)))


def spread(num_samples: int, count: int) -> list[int]:
    """Which samples a workload of `count` has: evenly over all, for data sets are often sorted by label."""
    return [(index * num_samples // count) % num_samples for index in range(count)]
