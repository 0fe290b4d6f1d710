"""Logits of continuations in PyTorch: a shared prefix is computed once, and no logits that nobody asked for.

A batch of prefixes is read with a key-value cache, whose rows are then copied to the continuations. Prefixes and
continuations are padded on the right, where causal attention never looks; the padding that stands between the two is
masked. Prefixes with one continuation each are read together with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch

Tokens = Sequence[int]
Part = tuple[list[int], torch.Tensor]

_ROWS = 16
"""Continuations read at once: those of similar length go together, so that padding is little."""


def can_share_prefix(model: Any) -> bool:
    """Whether the model takes positions and has a key-value cache that keeps every token of every layer."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    taken = inspect.signature(model.forward).parameters
    if not {"past_key_values", "use_cache", "position_ids", "attention_mask"} <= set(taken):
        return False
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def continuation_logits(
    model: Any, device: str, prefixes: Sequence[Tokens], continuations: Sequence[Tokens], owners: Sequence[int]
) -> Iterator[Part]:
    """See `compressbench.core.protocols.SharesPrefix`."""
    reader = _Reader(model, device)
    starts = [0, *accumulate(len(tokens) for tokens in continuations)]
    if len(set(owners)) == len(owners):
        yield reader.whole([prefixes[owner] for owner in owners], continuations, starts)
        return
    cache, last = reader.prefill(prefixes)
    yield starts[:-1], last[list(owners)]
    going_on = sorted(
        (i for i, tokens in enumerate(continuations) if len(tokens) > 1), key=lambda i: -len(continuations[i])
    )
    lengths = [len(prefix) for prefix in prefixes]
    for begin in range(0, len(going_on), _ROWS):
        chosen = going_on[begin : begin + _ROWS]
        rows = [owners[index] for index in chosen]
        logits = reader.go_on(cache, rows, lengths, [continuations[index][:-1] for index in chosen])
        places = [range(starts[index] + 1, starts[index + 1]) for index in chosen]
        yield _picked(logits, [range(len(each)) for each in places], places)


class _Reader:
    def __init__(self, model: Any, device: str) -> None:
        self._model, self._device = model, device
        self._can_choose = "logits_to_keep" in inspect.signature(model.forward).parameters

    def whole(self, prefixes: Sequence[Tokens], continuations: Sequence[Tokens], starts: Sequence[int]) -> Part:
        """Each prefix with the one continuation that follows it."""
        rows = [[*prefix, *tokens[:-1]] for prefix, tokens in zip(prefixes, continuations, strict=True)]
        wanted = [range(len(row) - len(tokens), len(row)) for row, tokens in zip(rows, continuations, strict=True)]
        places = [range(begin, end) for begin, end in pairwise(starts)]
        return _picked(*self._read(rows, wanted), places)

    def prefill(self, prefixes: Sequence[Tokens]) -> tuple[Any, torch.Tensor]:
        """The cache of all prefixes, and the logits after the last token of each, (prefixes x vocabulary)."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        wanted = [range(len(prefix) - 1, len(prefix)) for prefix in prefixes]
        logits, at = self._read(prefixes, wanted, past_key_values=cache, use_cache=True)
        return cache, logits[list(range(len(prefixes))), [each[0] for each in at]]

    def go_on(
        self, cache: Any, rows: Sequence[int], lengths: Sequence[int], continuations: Sequence[Tokens]
    ) -> torch.Tensor:
        """Logits (rows x longest x vocabulary) of continuations that follow the cache's `rows` of these `lengths`."""
        ids = self._padded(continuations)
        before = torch.tensor([lengths[row] for row in rows], device=self._device).unsqueeze(1)
        own = torch.tensor([len(tokens) for tokens in continuations], device=self._device).unsqueeze(1)
        steps = torch.arange(ids.shape[1], device=self._device)
        in_prefix = torch.arange(cache.get_seq_length(), device=self._device) < before
        with torch.inference_mode():
            found = self._model(
                input_ids=ids,
                attention_mask=torch.cat([in_prefix, in_prefix.new_ones(ids.shape)], dim=1).long(),
                position_ids=before + torch.minimum(steps, own - 1),  # padding never has a position the model hasn't
                past_key_values=self._chosen(cache, rows),
                use_cache=True,
            )
        return found.logits  # type: ignore[no-any-return]

    def _chosen(self, cache: Any, rows: Sequence[int]) -> Any:
        """A cache with these rows of another one, some more than once."""
        from transformers import DynamicCache

        chosen, index = DynamicCache(config=self._model.config), torch.tensor(rows, device=self._device)
        for number, layer in enumerate(cache.layers):
            chosen.update(layer.keys.index_select(0, index), layer.values.index_select(0, index), number)
        return chosen

    def _read(
        self, rows: Sequence[Tokens], wanted: Sequence[range], **options: Any
    ) -> tuple[torch.Tensor, list[range]]:
        """Logits of the rows from the first position that is wanted in any of them, and where the wanted ones are."""
        first, last = min(each.start for each in wanted), max(each.stop for each in wanted)
        if self._can_choose:
            options["logits_to_keep"] = torch.arange(first, last, device=self._device)
        with torch.inference_mode():
            logits = self._model(input_ids=self._padded(rows), **options).logits
        if not self._can_choose:
            logits = logits[:, first:last]
        return logits, [range(each.start - first, each.stop - first) for each in wanted]

    def _padded(self, rows: Sequence[Tokens]) -> torch.Tensor:
        """Token ids (rows x longest) with zeros on the right."""
        longest = max(len(row) for row in rows)
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self._device)


def _picked(logits: torch.Tensor, wanted: Sequence[range], places: Iterable[range]) -> Part:
    """The wanted positions of each row, one row after the other, under their places."""
    flat_places = [place for each in places for place in each]
    if len(flat_places) == logits.shape[0] * logits.shape[1]:
        return flat_places, logits.flatten(0, 1)
    rows = [row for row, each in enumerate(wanted) for _ in each]
    return flat_places, logits[rows, [position for each in wanted for position in each]]
