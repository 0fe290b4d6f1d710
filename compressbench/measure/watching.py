"""A watcher for the device that is measured, open for the length of a comparison."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Clock
from compressbench.measure.gpu_evidence import GpuWatcher
from compressbench.measure.interference import Watcher
from compressbench.meters.nvml_device import cuda_uuid


@contextmanager
def watching(
    device: str, own_pids: Collection[int] = (), process_clock: Clock = time.process_time_ns
) -> Iterator[Watcher]:
    """Watches the CPU, and the GPU too if the device is one ("cuda", "cuda:1"). `own_pids` are processes of ours on a GPU;
    `process_clock` says how much CPU time is ours.

    A GPU that NVML can't find leaves its evidence unread, with a reason.
    """
    gpu = GpuWatcher(_name(device), own_pids=own_pids) if device.startswith("cuda") else None
    watcher = Watcher(process_clock=process_clock, gpu=gpu)
    try:
        yield watcher
    finally:
        watcher.close()


def _name(device: str) -> str:
    try:
        return cuda_uuid(device)
    except MeterError:
        return device  # NVML knows no such name, and the watcher says so
