"""PyTorch's profiler around a call, quiet, and of the GPU too where the model is on one."""

from __future__ import annotations

import os

import torch


def profiler(device: str, *, record_shapes: bool = False) -> torch.profiler.profile:
    """To be used in a `with`; its `events` are those of all that ran in it."""
    # the profiler's native part announces itself on the terminal otherwise
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.startswith("cuda"):
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    return torch.profiler.profile(activities=activities, record_shapes=record_shapes, acc_events=True)
