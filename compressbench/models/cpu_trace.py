"""What PyTorch's CPU allocator hands out during work that is too long to be followed in one piece."""

from __future__ import annotations

import os
from typing import Any

import torch


class CpuTrace:
    """Follows allocations from `start` to `stop`, in sections: `cut` sums up what was seen so far and goes on.

    The profiler keeps a kilobyte or two per operation until a section ends, which for a long generation would be more
    than the model. A block that one section has seen allocated is also seen when a later section frees it.
    """

    def __init__(self) -> None:
        self.held_bytes = self.peak_bytes = 0
        self._profile: Any = None

    def start(self) -> None:
        # the profiler's native part announces itself on the terminal otherwise
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        self._profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
        self._profile.start()

    def cut(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        profile, self._profile = self._profile, None
        profile.stop()
        events = profile.profiler.kineto_results.events()
        for event in sorted((each for each in events if each.name() == "[memory]"), key=lambda each: each.start_ns()):
            self.held_bytes += event.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        profile.profiler = None  # the profile is part of a cycle, which would keep the events until it is collected
