"""Logits of the last tokens of sequences in PyTorch: what begins alike is computed once, and no logits nobody asked for.

Sequences that begin alike become one row: their common beginning, and then what follows in each, one after the other.
Everything that follows has the positions that it has in its own sequence, and attends to the beginning and to itself (a
tree of tokens, as in SpecInfer, arXiv:2305.09781). Rows are padded on the right, where causal attention never looks.
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
"""Beginnings are shared where that saves so many tokens, because attention with a mask of its own is slower."""


class _Sequence(NamedTuple):
    """Tokens that are read (all but the last), and the place of the logits at their position `begin`, the first wanted."""

    tokens: Tokens
    begin: int
    place: int


class _Row(NamedTuple):
    """Tokens with their positions, and the number of the branch that each belongs to, 0 in the common beginning.

    `wanted` has runs of indices into the row, each with the place that its first gets.
    """

    tokens: list[int]
    positions: list[int]
    branches: list[int]
    wanted: list[tuple[range, int]]


def can_share_prefix(model: Any) -> bool:
    """Whether every layer attends to all tokens, at positions and with a mask that the caller gives."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    taken = inspect.signature(model.forward).parameters
    if not {"past_key_values", "position_ids", "attention_mask"} <= set(taken):
        return False
    if model.config._attn_implementation not in {"sdpa", "eager"}:
        return False
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def last_logits(
    model: Any, device: str, sequences: Sequence[Tokens], num_last: Sequence[int], groups: Sequence[int]
) -> Iterator[Part]:
    """See `compressbench.core.protocols.SharesPrefix`."""
    starts = [0, *accumulate(num_last)]
    families: dict[int, list[_Sequence]] = {}
    for tokens, count, start, group in zip(sequences, num_last, starts, groups, strict=False):
        families.setdefault(group, []).append(_Sequence(tokens[:-1], len(tokens) - 1 - count, start))
    rows = [row for family in families.values() for row in _rows(family)]
    for chunk in chunks_by_length([len(row.tokens) for row in rows]):
        yield _read(model, device, [rows[index] for index in chunk])


def _rows(family: Sequence[_Sequence]) -> list[_Row]:
    """One row where sharing saves enough, or else one for each sequence."""
    common = _num_common([each.tokens for each in family])
    if common * (len(family) - 1) < _WORTH_SHARING:
        return [_row([each], len(each.tokens)) for each in family]
    return [_row(family, common)]


def _row(family: Sequence[_Sequence], common: int) -> _Row:
    row = _Row(list(family[0].tokens[:common]), list(range(common)), [0] * common, [])
    for branch, each in enumerate(family, 1):
        offset, end = len(row.tokens) - common, len(each.tokens)
        first = max(each.begin, common)
        row.wanted.append((range(each.begin, common), each.place))
        row.wanted.append((range(first + offset, end + offset), each.place + first - each.begin))
        row.tokens.extend(each.tokens[common:])
        row.positions.extend(range(common, end))
        row.branches.extend([branch] * (end - common))
    return row


def _num_common(rows: Sequence[Tokens]) -> int:
    """How many tokens all rows begin with."""
    shortest = min(len(row) for row in rows)
    return next((at for at in range(shortest) if len({row[at] for row in rows}) > 1), shortest)


def _read(model: Any, device: str, rows: Sequence[_Row]) -> Part:
    """The wanted logits, those of one row after the other, from one pass that computes few others."""
    wanted = [(row, run, place) for row, each in enumerate(rows) for run, place in each.wanted if run]
    first, last = min(run.start for _, run, _ in wanted), max(run.stop for _, run, _ in wanted)
    inputs = {"input_ids": _padded([row.tokens for row in rows], device)}
    if any(row.branches[-1] for row in rows):
        inputs["position_ids"] = _padded([row.positions for row in rows], device)
        inputs["attention_mask"] = _mask(_padded([row.branches for row in rows], device), model.dtype)
    can_choose = "logits_to_keep" in inspect.signature(model.forward).parameters
    if can_choose:
        inputs["logits_to_keep"] = torch.arange(first, last, device=device)
    with torch.inference_mode():
        logits = model(**inputs, use_cache=False).logits
        logits = logits if can_choose else logits[:, first:last]
        places = [place + at for _, run, place in wanted for at in range(len(run))]
        flat = [row * logits.shape[1] + at - first for row, run, _ in wanted for at in run]
        logits = logits.flatten(0, 1)
        is_everything = flat == list(range(len(logits)))
        return places, logits if is_everything else logits[torch.tensor(flat, device=device)]


def _mask(branches: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to attention scores, (rows x 1 x length x length): nothing for what comes before in the common
    beginning or in the same branch, else the lowest number. Padding counts as beginning; nobody looks at it.
    """
    length = branches.shape[1]
    is_before = torch.ones(length, length, dtype=torch.bool, device=branches.device).tril()
    keys, queries = branches.unsqueeze(1), branches.unsqueeze(2)
    is_seen = is_before & ((keys == 0) | (keys == queries))
    return (
        torch.zeros(is_seen.shape, dtype=dtype, device=branches.device)
        .masked_fill_(~is_seen, torch.finfo(dtype).min)
        .unsqueeze(1)
    )


def _padded(rows: Sequence[Tokens], device: str) -> torch.Tensor:
    """Integers (rows x longest) with zeros on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
