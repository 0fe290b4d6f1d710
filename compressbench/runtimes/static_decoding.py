"""Decoding with a key-value cache of a fixed size: every step has the same shapes, so it is compiled (or captured) once.

The prompt is read by the model in eager mode, because prompts of every length would each be compiled anew; the steps
after it are what takes the time of a generation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.protocols import Batch

if TYPE_CHECKING:
    import torch

Step = Callable[..., Any]
ROOM = 64
"""Caches hold a multiple of so many positions, so that texts of different lengths share a compiled step."""
_KEPT = 4


class Room(NamedTuple):
    """A cache with what a step reads besides it. A position of `mask` (batch x size) that is 0 holds padding."""

    cache: Any
    mask: torch.Tensor
    positions: torch.Tensor
    step: Step


def has_static_cache(model: Any) -> bool:
    """Whether transformers says of the model that a step with a static cache can be compiled whole."""
    return bool(getattr(model, "_can_compile_fullgraph", False))


class StaticSteps:
    """`models.own_decoding.Steps` of a transformers decoder.

    `make_step` gives what runs a step (tokens, positions, mask, cache -> logits of the last position); it is asked once
    for each size of a cache, and may run it on the cache, which is emptied afterwards.
    """

    def __init__(self, model: Any, device: str, make_step: Callable[[tuple[Any, ...]], Step]) -> None:
        self._model, self._device, self._make_step = model, device, make_step
        self._rooms = dict[tuple[int, int], Room]()
        self._now: Room | None = None

    def start(self, batch: Batch, num_tokens: int) -> torch.Tensor:
        import torch

        ids = batch["input_ids"].to(self._device)
        given = batch.get("attention_mask")
        mask = torch.ones_like(ids) if given is None else given.to(self._device)
        room = self._now = self.room(len(ids), ids.shape[1] + num_tokens - 1)
        room.cache.reset()
        room.mask.fill_(1)
        room.mask[:, : ids.shape[1]] = mask
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        room.positions.copy_(positions[:, -1:])
        return last_logits(self._model, ids, positions, room.mask, room.cache)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        room = self._now
        assert room is not None  # noqa: S101 -- a step follows a start
        room.positions.add_(1)
        found: torch.Tensor = room.step(tokens.to(self._device)[:, None], room.positions, room.mask, room.cache)
        return found

    def room(self, rows: int, length: int) -> Room:
        """A cache for so many positions at least, kept for the next time."""
        size = -(-length // ROOM) * ROOM
        if (rows, size) not in self._rooms:
            while len(self._rooms) >= _KEPT:
                self._rooms.pop(next(iter(self._rooms)))
            self._rooms[rows, size] = self._new_room(rows, size)
        return self._rooms[rows, size]

    def cache_bytes(self, rows: int, length: int) -> int:
        """Bytes of keys and values, which have their full size from the beginning."""
        cache = self.room(rows, length).cache
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)

    def _new_room(self, rows: int, size: int) -> Room:
        import torch
        from transformers import StaticCache

        cache = StaticCache(config=self._model.config, max_cache_len=size)
        tokens = torch.zeros((rows, 1), dtype=torch.long, device=self._device)
        mask, positions = torch.ones((rows, size), dtype=torch.long, device=self._device), torch.zeros_like(tokens)
        last_logits(self._model, tokens, positions, mask, cache)  # makes the tensors of the cache
        return Room(cache, mask, positions, self._make_step((tokens, positions, mask, cache)))


def last_logits(
    model: Any, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, cache: Any
) -> torch.Tensor:
    """Logits of the last position (batch x vocabulary) after `tokens` (batch x length); the cache grows by them."""
    found: torch.Tensor = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return found
