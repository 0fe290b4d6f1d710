"""Which device a run uses, and the process-wide settings that must be the same for all of its cells."""

from __future__ import annotations

import os

from compressbench.core.errors import ModelError


def prepare_device(wanted: str, num_threads: int | None) -> tuple[str, int]:
    """The device (cpu or cuda) and the number of CPU threads, now pinned: those given, else one per usable core.

    TF32 is switched off, so that a float32 baseline is float32. Raises ModelError if CUDA is wanted and not there.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError("there is no CUDA device here", do="Use device: auto or cpu; compressbench doctor says more.")
    device = "cuda" if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()) else "cpu"
    threads = num_threads or usable_cores()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    return device, threads


def usable_cores() -> int:
    """Cores that this process may run on: fewer than the machine has under taskset or in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
