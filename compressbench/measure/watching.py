"""A watcher for the device that is measured, open for the length of a comparison."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from compressbench.core.errors import MeterError
from compressbench.measure.gpu_evidence import GpuWatcher
from compressbench.measure.interference import Watcher
from compressbench.measure.server_process import clock_with_servers
from compressbench.meters.nvml_device import cuda_uuid


@contextmanager
def watching(device: str, runtimes: Iterable[Any] = (), own_pids: Collection[int] = ()) -> Iterator[Watcher]:
    """Watches the CPU, and the GPU too if the device is one ("cuda", "cuda:1"). What servers of `runtimes` on this machine
    use is ours, as are `own_pids` on a GPU.

    A GPU that NVML can't find leaves its evidence unread, with a reason.
    """
    gpu = GpuWatcher(_name(device), own_pids=own_pids) if device.startswith("cuda") else None
    watcher = Watcher(process_clock=clock_with_servers(runtimes), gpu=gpu)
    try:
        yield watcher
    finally:
        watcher.close()


def _name(device: str) -> str:
    try:
        return cuda_uuid(device)
    except MeterError:
        return device  # NVML knows no such name, and the watcher says so
