"""Logits of the last tokens of sequences in PyTorch: what begins alike is computed once, and no logits nobody asked for.

The common beginnings of a batch are read with a key-value cache, whose rows are then copied to the sequences that go on
from them. Everything is padded on the right, where causal attention never looks; the padding that comes to stand between
a beginning and what follows is masked.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch

from compressbench.core.padding import chunks_by_length

Tokens = Sequence[int]
Part = tuple[list[int], torch.Tensor]

_WORTH_SHARING = 16
"""Beginnings are shared where that saves so many tokens; each sharing is a further pass through the model."""


class _Wanted(NamedTuple):
    """Logits at the positions `begin` to `end` of row `row`, and the place that the first of them gets."""

    row: int
    begin: int
    end: int
    place: int


class _Sequence(NamedTuple):
    """Tokens that are read (all but the last), and the place of the logits at their position `begin`, the first wanted."""

    tokens: Tokens
    begin: int
    place: int

    def wanted(self, row: int, begin: int, end: int, offset: int = 0) -> _Wanted:
        """What is wanted of the positions from `begin` to `end`, in a row that starts at position `offset`."""
        first = max(self.begin, begin)
        return _Wanted(row, first - offset, max(first, end) - offset, self.place + first - self.begin)


def can_share_prefix(model: Any) -> bool:
    """Whether the model takes positions and has a key-value cache that keeps every token of every layer."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    taken = inspect.signature(model.forward).parameters
    if not {"past_key_values", "use_cache", "position_ids", "attention_mask"} <= set(taken):
        return False
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def last_logits(
    model: Any, device: str, sequences: Sequence[Tokens], num_last: Sequence[int], groups: Sequence[int]
) -> Iterator[Part]:
    """See `compressbench.core.protocols.SharesPrefix`."""
    starts = [0, *accumulate(num_last)]
    reader, alone = _Reader(model, device), list[_Sequence]()
    families: dict[int, list[_Sequence]] = {}
    for tokens, count, start, group in zip(sequences, num_last, starts, groups, strict=False):
        families.setdefault(group, []).append(_Sequence(tokens[:-1], len(tokens) - 1 - count, start))
    shared: list[tuple[int, list[_Sequence]]] = []
    for family in families.values():
        common = _num_common([each.tokens for each in family])
        if common * (len(family) - 1) >= _WORTH_SHARING:
            shared.append((common, family))
        else:
            alone += family
    for chunk in chunks_by_length([len(each.tokens) for each in alone]):
        some = [alone[index] for index in chunk]
        wanted = [each.wanted(row, 0, len(each.tokens)) for row, each in enumerate(some)]
        yield reader.read([each.tokens for each in some], wanted)
    if shared:
        yield from _read_shared(reader, shared)


def _read_shared(reader: _Reader, shared: Sequence[tuple[int, list[_Sequence]]]) -> Iterator[Part]:
    beginnings, row_of = [], dict[int, int]()
    for chunk in chunks_by_length([common for common, _ in shared]):
        row_of |= {index: len(row_of) + row for row, index in enumerate(chunk)}
        some = [shared[index] for index in chunk]
        wanted = [each.wanted(row, 0, common) for row, (common, family) in enumerate(some) for each in family]
        beginnings.append(reader.new_cache())
        yield reader.read([family[0].tokens[:common] for common, family in some], wanted, beginnings[-1])
    cache = reader.joined(beginnings)
    members = [(row_of[index], common, each) for index, (common, family) in enumerate(shared) for each in family]
    going_on = [member for member in members if len(member[2].tokens) > member[1]]
    for chunk in chunks_by_length([len(each.tokens) - common for _, common, each in going_on]):
        follow = [going_on[index] for index in chunk]
        wanted = [each.wanted(row, common, len(each.tokens), common) for row, (_, common, each) in enumerate(follow)]
        rest = [each.tokens[common:] for _, common, each in follow]
        yield reader.go_on(cache, [(row, common) for row, common, _ in follow], rest, wanted)


def _num_common(rows: Sequence[Tokens]) -> int:
    """How many tokens all rows begin with."""
    shortest = min(len(row) for row in rows)
    return next((at for at in range(shortest) if len({row[at] for row in rows}) > 1), shortest)


class _Reader:
    def __init__(self, model: Any, device: str) -> None:
        self._model, self._device = model, device
        self._can_choose = "logits_to_keep" in inspect.signature(model.forward).parameters

    def new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)

    def read(self, rows: Sequence[Tokens], wanted: Sequence[_Wanted], cache: Any = None) -> Part:
        """Rows from their beginning; with a cache, their keys and values are kept there."""
        options = {} if cache is None else {"past_key_values": cache}
        return self._picked(wanted, input_ids=self._padded(rows), use_cache=cache is not None, **options)

    def joined(self, caches: Sequence[Any]) -> Any:
        """One cache with the rows of all, padded on the right to the longest."""
        if len(caches) == 1:
            return caches[0]
        longest, whole = max(cache.get_seq_length() for cache in caches), self.new_cache()
        with torch.inference_mode():
            for number, layers in enumerate(zip(*(cache.layers for cache in caches), strict=True)):
                keys = torch.cat([_lengthened(layer.keys, longest) for layer in layers])
                whole.update(keys, torch.cat([_lengthened(layer.values, longest) for layer in layers]), number)
        return whole

    def go_on(
        self,
        cache: Any,
        beginnings: Sequence[tuple[int, int]],
        rows: Sequence[Tokens],
        wanted: Sequence[_Wanted],
    ) -> Part:
        """Rows that follow `beginnings`: the row of the cache, and how many tokens it has, for each."""
        ids = self._padded(rows)
        before = torch.tensor([length for _, length in beginnings], device=self._device).unsqueeze(1)
        last = torch.tensor([len(row) - 1 for row in rows], device=self._device).unsqueeze(1)
        steps = torch.arange(ids.shape[1], device=self._device)
        in_prefix = torch.arange(int(before.max()), device=self._device) < before
        return self._picked(
            wanted,
            input_ids=ids,
            attention_mask=torch.cat([in_prefix, in_prefix.new_ones(ids.shape)], dim=1).long(),
            position_ids=before + torch.minimum(steps, last),  # the padding has no position that the model hasn't
            past_key_values=self._chosen(cache, [row for row, _ in beginnings], int(before.max())),
            use_cache=True,
        )

    def _chosen(self, cache: Any, rows: Sequence[int], length: int) -> Any:
        """A cache with these rows of another one, some more than once, and `length` tokens of each."""
        chosen, index = self.new_cache(), torch.tensor(rows, device=self._device)
        with torch.inference_mode():
            for number, layer in enumerate(cache.layers):
                keys, values = layer.keys[:, :, :length], layer.values[:, :, :length]
                chosen.update(keys.index_select(0, index), values.index_select(0, index), number)
        return chosen

    def _picked(self, wanted: Sequence[_Wanted], **inputs: Any) -> Part:
        """The wanted logits, those of one row after the other, from one pass that computes few others."""
        some = [each for each in wanted if each.end > each.begin]
        first = min((each.begin for each in some), default=0)
        last = max((each.end for each in some), default=1)
        if self._can_choose:
            inputs["logits_to_keep"] = torch.arange(first, last, device=self._device)
        with torch.inference_mode():
            logits = self._model(**inputs).logits
            logits = logits if self._can_choose else logits[:, first:last]
            rows = [each.row for each in some for _ in range(each.begin, each.end)]
            places = [place for each in some for place in range(each.place, each.place + each.end - each.begin)]
            if rows == [row for row in range(logits.shape[0]) for _ in range(logits.shape[1])]:
                return places, logits.flatten(0, 1)
            return places, logits[rows, [at - first for each in some for at in range(each.begin, each.end)]]

    def _padded(self, rows: Sequence[Tokens]) -> torch.Tensor:
        """Token ids (rows x longest) with zeros on the right."""
        longest = max(len(row) for row in rows)
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self._device)


def _lengthened(states: torch.Tensor, length: int) -> torch.Tensor:
    """Keys or values (rows x heads x tokens x dimensions) with zeros for the tokens up to `length`."""
    return torch.nn.functional.pad(states, (0, 0, 0, length - states.shape[2]))
