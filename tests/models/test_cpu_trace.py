"""Work that is followed in sections gives the numbers of work that is followed in one piece."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from compressbench.models.allocations import trace_allocations
from compressbench.models.cpu_trace import CpuTrace


def work(cut: Callable[[], None]) -> Any:
    """Holds 1000, 1000 + 3000, 3000 and 3000 + 500 floats; each is freed in a later section than it was made in."""
    first = torch.zeros(1000)
    cut()
    second = torch.zeros(3000)
    cut()
    del first
    cut()
    third = torch.zeros(500)
    del second
    cut()
    return third


def test_what_one_section_allocates_another_frees() -> None:
    trace = CpuTrace()
    trace.start()
    result = work(trace.cut)
    trace.stop()
    assert (trace.held_bytes, trace.peak_bytes) == (4 * 500, 4 * 4000)
    whole = trace_allocations(lambda: work(lambda: None), "cpu")
    assert (trace.held_bytes, trace.peak_bytes) == whole
    del result


def test_what_was_held_before_does_not_count() -> None:
    held = torch.zeros(5000)
    trace = CpuTrace()
    trace.start()
    result = held[:100].clone()
    trace.stop()
    assert (trace.held_bytes, trace.peak_bytes) == (400, 400)
    del result


def test_events_are_gone_when_their_section_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Any]] = []
    original = torch.profiler.profile

    def noted(**options: Any) -> Any:
        profile = original(**options)
        made.append(weakref.ref(profile))
        return profile

    monkeypatch.setattr(torch.profiler, "profile", noted)
    gc.collect()
    gc.disable()
    try:
        trace = CpuTrace()
        trace.start()
        torch.zeros(10)
        trace.stop()
        (profile,) = (reference() for reference in made)
        assert profile is None or profile.profiler is None, "a cycle would keep them until it is collected"
    finally:
        gc.enable()
