"""What PyTorch's allocators hand out while something runs: exact tensor bytes, not a sampled process size.

The process size can't be divided among models that live in one process; allocations can. Scratch memory that a kernel
library takes behind PyTorch's back isn't seen on CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from compressbench.models.cpu_trace import CpuTrace


class Allocations(NamedTuple):
    """`net_bytes` still held when the work returned, `peak_bytes` the most held at any moment, both above the start."""

    net_bytes: int
    peak_bytes: int


def trace_allocations(work: Callable[[], Any], device: str) -> Allocations:
    """Run `work` once and follow its allocations; what it returns is kept alive until it has been counted."""
    return _trace_cuda(work, device) if device.startswith("cuda") else _trace_cpu(work)


def _trace_cpu(work: Callable[[], Any]) -> Allocations:
    trace, result = CpuTrace(), None
    trace.start()
    try:
        result = work()
    finally:
        trace.stop()
    del result
    return Allocations(trace.held_bytes, trace.peak_bytes)


def _trace_cuda(work: Callable[[], Any], device: str) -> Allocations:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = work()
    torch.cuda.synchronize(device)
    allocations = Allocations(
        torch.cuda.memory_allocated(device) - before, torch.cuda.max_memory_allocated(device) - before
    )
    del result
    return allocations
