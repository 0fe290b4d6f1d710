"""Which kernels really run: the profiler's names of one call, altogether and inside of each module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEvent

from compressbench.core.protocols import Batch, Session
from compressbench.models.profiling import profiler

_MARK = "compressbench.module:"
FLOAT_PRODUCTS = frozenset(
    {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mkldnn_linear", "mkldnn::_linear_pointwise"}
)
"""Matrix products of floating-point operands; those of integers have names of their own."""


class KernelTrace(NamedTuple):
    """`counts`: operators and device kernels of one call. `by_module`: the names that ran inside of each module that was
    called; a module that the session never calls (it runs something else than this model) isn't there.
    """

    counts: dict[str, int]
    by_module: dict[str, frozenset[str]]


def trace_kernels(session: Session, batch: Batch, modules: Mapping[str, nn.Module]) -> KernelTrace:
    """Profile one call of the session, warm if the caller has called it before. Modules are as they were afterwards."""
    with _marked(modules), profiler(session.device) as profile:
        session(batch)
        session.synchronize()
    events = list(profile.events() or ())
    counts = Counter(event.name for event in events if not event.name.startswith(_MARK))
    return KernelTrace(dict(counts.most_common()), _by_module(events))


@contextmanager
def _marked(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Every call of a module is a range of its name in the profile."""
    hooks: list[Any] = []
    try:
        for name, module in modules.items():
            marker = _Marker(f"{_MARK}{name}")
            hooks.append(module.register_forward_pre_hook(marker.begin))
            hooks.append(module.register_forward_hook(marker.end, always_call=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Marker:
    def __init__(self, name: str) -> None:
        self._name, self._open = name, list[torch.profiler.record_function]()

    def begin(self, *_: object) -> None:
        self._open.append(torch.profiler.record_function(self._name))
        self._open[-1].__enter__()  # type: ignore[no-untyped-call]

    def end(self, *_: object) -> None:
        self._open.pop().__exit__(None, None, None)


def _by_module(events: list[FunctionEvent]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue
        if event.name.startswith(_MARK):
            found.setdefault(event.name.removeprefix(_MARK), set())
            continue
        for owner in _owners(event):
            found.setdefault(owner, set()).update((event.name, *(kernel.name for kernel in event.kernels)))
    return {name: frozenset(names) for name, names in found.items()}


def _owners(event: FunctionEvent) -> Iterator[str]:
    parent = event.cpu_parent
    while parent is not None:
        if parent.name.startswith(_MARK):
            yield parent.name.removeprefix(_MARK)
        parent = parent.cpu_parent
