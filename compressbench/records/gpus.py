"""The GPUs of a machine, as records name them."""

from __future__ import annotations

import hashlib
import importlib
from typing import Any

from compressbench.core.spec import Spec


class Gpu(Spec):
    """One GPU that NVML sees; `uuid_hash` tells devices apart without naming them."""

    name: str | None
    memory_bytes: int | None
    driver: str | None
    uuid_hash: str | None


def read_gpus(nvml: Any = None) -> tuple[Gpu, ...] | None:
    """The GPUs that NVML sees; None if NVML can't be used, and None for each property that can't be read."""
    try:
        nvml = nvml if nvml is not None else importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        return tuple(_read_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def _read_gpu(nvml: Any, index: int) -> Gpu:
    def read(name: str, *arguments: Any) -> Any:
        try:
            return getattr(nvml, name)(*arguments)
        except nvml.NVMLError:
            return None

    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory, uuid = read("nvmlDeviceGetMemoryInfo", handle), read("nvmlDeviceGetUUID", handle)
    return Gpu(
        name=read("nvmlDeviceGetName", handle),
        memory_bytes=memory and memory.total,
        driver=read("nvmlSystemGetDriverVersion"),
        uuid_hash=uuid and hashlib.sha256(uuid.encode()).hexdigest()[:16],
    )
