"""The key-value cache of a model, counted in bytes of its tensors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch

from compressbench.core.protocols import Batch


@runtime_checkable
class HoldsCache(Protocol):
    """A session that can say what the cache of a generation by `num_tokens` tokens holds in the end."""

    def kv_cache_bytes(self, batch: Batch, num_tokens: int) -> int | None: ...


def cache_bytes(model: Any, batch: Batch, num_tokens: int) -> int | None:
    """Bytes of keys and values once `num_tokens` tokens have been generated from `batch` (batch x length); measured.

    One prefill makes the cache at its full length: length + num_tokens - 1 positions, because the last token is never
    fed back. None if the model hands out no cache.
    """
    if "use_cache" not in inspect.signature(model.forward).parameters:
        return None
    options: dict[str, Any] = {"use_cache": True}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = 1  # the logits of all positions may be larger than the cache
    with torch.inference_mode():
        found = model(**_lengthened(batch, max(0, num_tokens - 1)), **options)
    cache = getattr(found, "past_key_values", None)
    return None if cache is None else sum(_sizes(cache).values())


def _lengthened(batch: Batch, extra: int) -> dict[str, Any]:
    """Every input with its last column `extra` times more; what is in a cache doesn't matter for its size."""
    return {
        name: torch.cat([tensor, tensor[:, -1:].expand(-1, extra)], dim=1) if tensor.dim() == 2 else tensor
        for name, tensor in batch.items()
    }


def _sizes(cache: Any) -> dict[int, int]:
    """Bytes by address: layers may share their keys and values. Counters (no dimension) are not part of a cache."""
    return {tensor.data_ptr(): tensor.nbytes for tensor in _tensors(cache, set()) if tensor.dim()}


def _tensors(value: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
        return
    if id(value) in seen or isinstance(value, str | int | float | torch.dtype | torch.device):
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        parts: Any = value.values()
    elif isinstance(value, list | tuple):
        parts = value
    else:
        parts = getattr(value, "__dict__", {}).values()
    for part in parts:
        yield from _tensors(part, seen)
