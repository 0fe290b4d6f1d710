"""Memory of a generation followed to its end, the key-value cache, and what CUDA's allocator takes from the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from compressbench.core.protocols import Batch
from compressbench.meters.memory import CallPeak, Memory, call_peak
from compressbench.models.allocations import trace_allocations
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm, tiny_classifier

BATCH = {"input_ids": torch.tensor([[2, 4, 6, 8, 3]])}


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return tiny_classifier()


class Growing:
    """Generates: a prefill of 6000 floats at once, then a cache that grows by 100 floats per token and is copied for it."""

    device = "cpu"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, batch: Batch) -> Any:
        raise AssertionError("a generation is what is timed")

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> Any:
        self.asked.append(num_tokens)
        cache = torch.zeros(6000)[:0].clone()
        for _ in range(num_tokens):
            grown = torch.zeros(len(cache) + 100)
            cache = grown
            if on_token is not None:
                on_token()
        return cache

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("num_tokens", "floats"), [(1, 6000), (5, 6000), (30, 6000), (31, 30 * 100 + 31 * 100), (50, 9900)]
)
def test_a_generation_is_followed_to_its_end(classifier: ModelHandle, num_tokens: int, floats: int) -> None:
    """Until the 30th token the prefill is the peak, then the cache beside its copy that is longer by a token."""
    session = Growing()
    found = {each.name: each.value for each in Memory().read(classifier, session, BATCH, num_tokens)}
    assert found["peak_memory_bytes"] - found["weights_memory_bytes"] == 4 * floats
    assert session.asked == [num_tokens, num_tokens], "one call before the one that is read, at the same length"


@pytest.mark.parametrize("num_tokens", [1, 4, 5, 23])
def test_following_in_sections_finds_what_following_in_one_piece_finds(num_tokens: int) -> None:
    handle = tiny_causal_lm()
    session, batch = TorchEager().prepare(handle, "cpu"), {**BATCH, "attention_mask": torch.ones(1, 5).long()}
    session.generate(batch, num_tokens)
    whole = trace_allocations(lambda: session.generate(batch, num_tokens), "cpu").peak_bytes
    assert call_peak(session, batch, num_tokens) == CallPeak(whole, 0)


def test_the_cache_of_a_language_model_is_read_at_the_workloads_length(classifier: ModelHandle) -> None:
    handle = tiny_causal_lm(num_layers=3)  # 2 heads of 16 for keys and for values
    session, batch = TorchEager().prepare(handle, "cpu"), {"input_ids": torch.full((2, 5), 4)}
    for output_tokens, positions in ((None, 5), (1, 5), (8, 12)):
        found = {each.name: each for each in Memory().read(handle, session, batch, output_tokens)}
        cache = found["kv_cache_memory_bytes"]
        assert cache.value == 2 * 3 * 2 * 16 * positions * 4 * 2
        assert (cache.kind, cache.unit) == ("measured", "B")
        assert cache.boundary.startswith(f"2 x {positions} positions")
    plain = Memory().read(classifier, TorchEager().prepare(classifier, "cpu"), BATCH)
    assert [each.name for each in plain] == ["weights_memory_bytes", "peak_memory_bytes"], "a classifier keeps no cache"


class CachingAllocator:
    """Stands in for CUDA's: takes segments of 1000 bytes from the device and keeps them until it is told to give back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.allocated = self.reserved = self.most_allocated = self.most_reserved = 0
        for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
            field = name.replace("max_memory", "most").replace("memory_", "")
            monkeypatch.setattr(torch.cuda, name, lambda device, field=field: getattr(self, field))
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)
        monkeypatch.setattr(torch.cuda, "empty_cache", self.give_back)

    def hold(self, num_bytes: int) -> None:
        """Negative: let go."""
        self.allocated += num_bytes
        self.reserved = max(self.reserved, -(-self.allocated // 1000) * 1000)
        self.most_allocated = max(self.most_allocated, self.allocated)
        self.most_reserved = max(self.most_reserved, self.reserved)

    def reset(self, device: str) -> None:
        self.most_allocated, self.most_reserved = self.allocated, self.reserved

    def give_back(self) -> None:
        self.reserved = -(-self.allocated // 1000) * 1000


class OnCuda:
    """Every call holds `needed` bytes for a moment."""

    device = "cuda"

    def __init__(self, allocator: CachingAllocator, needed: int) -> None:
        self.allocator, self.needed = allocator, needed

    def __call__(self, batch: Batch) -> Any:
        self.allocator.hold(self.needed)
        self.allocator.hold(-self.needed)

    def generate(self, batch: Batch, num_tokens: int, on_token: Callable[[], None] | None = None) -> Any:
        self.allocator.hold(num_tokens * self.needed)
        self.allocator.hold(-num_tokens * self.needed)

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("before", "needed", "output_tokens", "allocated", "reserved"),
    [
        (0, 4500, None, 4500, 5000),
        (2000, 4500, None, 4500, 5000),
        (2300, 4500, None, 4500, 4500),  # 700 bytes of the others' last segment are free: 4000 more are taken
        (2300, 500, None, 500, 500),  # it fits beside them
        (0, 1500, 3, 4500, 5000),
    ],
)
def test_on_cuda_what_the_allocator_takes_for_a_call_is_read_too(
    monkeypatch: pytest.MonkeyPatch,
    classifier: ModelHandle,
    before: int,
    needed: int,
    output_tokens: int | None,
    allocated: int,
    reserved: int,
) -> None:
    allocator = CachingAllocator(monkeypatch)
    allocator.hold(before + 50_000)  # whatever came before left much in the allocator's cache
    allocator.hold(-50_000)
    session = OnCuda(allocator, needed)
    readings = Memory().read(replace(classifier, model=nn.Linear(2, 2)), session, BATCH, output_tokens)
    found = {each.name: each for each in readings}
    weights = 4 * 6
    assert found["peak_memory_bytes"].value == weights + allocated
    assert found["peak_reserved_memory_bytes"].value == weights + reserved
    assert {each.source for each in readings} == {"PyTorch CUDA allocator"}


def test_on_cpu_nothing_is_reserved(classifier: ModelHandle) -> None:
    found = Memory().read(classifier, TorchEager().prepare(classifier, "cpu"), BATCH)
    assert "peak_reserved_memory_bytes" not in {each.name for each in found}
