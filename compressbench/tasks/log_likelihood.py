"""How likely a language model finds a continuation of a context, for many pairs of them at once.

Pairs become tokens, and tokens are cut, as in lm-evaluation-harness (arXiv:2405.14782), so that scores agree with its.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from compressbench.core.errors import DataError, ModelError, NotFiniteError
from compressbench.core.padding import chunks_by_length
from compressbench.core.protocols import Session, SharesPrefix
from compressbench.models.handle import ModelHandle
from compressbench.tasks.batching import Size, batches_by_tokens, padded

if TYPE_CHECKING:
    import torch

_CHUNK = 1 << 18
"""So many logits are normalised at once: few enough to stay in a cache."""


class Pair(NamedTuple):
    """Tokens of a context and of its continuation; `is_truncated` where the context has lost its beginning."""

    context: list[int]
    continuation: list[int]
    is_truncated: bool = False


class Batching(NamedTuple):
    """A batch has at most so many sequences, and so many tokens, padding included."""

    batch_size: int
    token_budget: int


class Likelihood(NamedTuple):
    """`log_likelihood` in nats; `num_greedy` of the tokens are the likeliest at their place."""

    log_likelihood: float
    num_greedy: int


Shown = Callable[[int, Any], None]
"""Takes the number of a pair and the logits (1 x tokens x vocabulary) that predict its continuation."""


def encode_pairs(handle: ModelHandle, texts: Sequence[tuple[str, str]], max_length: int) -> list[Pair]:
    """Contexts and continuations as tokens.

    Spaces at the end of a context move to its continuation; both are tokenized as one text and cut where the context's
    own tokens end, so that words keep their spaces. An empty context becomes the token that begins (or else ends) a text.
    What is longer than the model reads loses its beginning. Raises DataError for a continuation without tokens, or longer
    than `max_length`.
    """
    moved = [_spaces_moved(*pair) for pair in texts]
    contexts = encode_texts(handle, list(dict.fromkeys(context for context, _ in moved if context)))
    wholes = encode_texts(handle, list(dict.fromkeys(context + text for context, text in moved if context)))
    pairs = []
    for context, text in moved:
        begin = contexts[context] if context else []
        pair = (begin, wholes[context + text][len(begin) :]) if context else _without_context(handle, text)
        pairs.append(_cut(*pair, max_length, text))
    return pairs


def _spaces_moved(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    # a context of nothing but spaces is left without a text, and counts as empty
    return kept, context[len(kept) :] + continuation


def encode_texts(handle: ModelHandle, texts: list[str]) -> dict[str, list[int]]:
    """Token ids by text, with the special tokens that the tokenizer adds; without them for a text that begins with one."""
    if not texts:
        return {}
    prefix = prefix_token(handle)
    begins = handle.tokenizer.decode([prefix]) if prefix is not None else None
    found: dict[str, list[int]] = {}
    for has_prefix in (False, True):
        part = [text for text in texts if (begins is not None and text.startswith(begins)) == has_prefix]
        if part:
            ids = handle.tokenizer(part, add_special_tokens=not has_prefix, verbose=False)["input_ids"]
            found |= zip(part, ids, strict=True)
    return found


def prefix_token(handle: ModelHandle) -> int | None:
    """The token that a text without context is read after: what begins a text, or else what ends one."""
    begin: int | None = handle.tokenizer.bos_token_id
    end: int | None = handle.tokenizer.eos_token_id
    return begin if begin is not None else end


def required_prefix_token(handle: ModelHandle) -> int:
    """That token; ModelError if the tokenizer has neither."""
    found = prefix_token(handle)
    if found is None:
        raise ModelError(
            "the tokenizer has no token that begins or ends a text, and the first token needs one before it",
            where=handle.source.id,
            do="Give the task a description, so that no context is empty.",
        )
    return found


def _without_context(handle: ModelHandle, text: str) -> tuple[list[int], list[int]]:
    prefix = required_prefix_token(handle)
    ids: list[int] = handle.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return (ids[:1], ids[1:]) if ids[:1] == [prefix] else ([prefix], ids)


def _cut(context: list[int], continuation: list[int], max_length: int, text: str) -> Pair:
    if not 1 <= len(continuation) <= max_length:
        raise DataError(
            "a continuation has no token of its own" if not continuation else "a continuation is too long",
            got=f"{text[:80]!r}, {len(continuation)} tokens, of which the model reads {max_length}",
            do="Check target_delimiter and the templates.",
        )
    kept = context[-(max_length + 1 - len(continuation)) :]  # the last token of all is predicted and never read
    return Pair(kept, continuation, len(kept) < len(context))


def likelihoods(
    session: Session,
    questions: Sequence[Sequence[Pair]],
    batching: Batching,
    advance: Callable[[int], None],
    show: Shown | None = None,
) -> list[list[Likelihood]]:
    """One for every pair of every question. Raises NotFiniteError if one is no number.

    Pairs of one question share the computation of what they begin with, where the session can. `advance` gets the number
    of questions done; `show` the logits of each pair, under its number among all.
    """
    numbers, count = list[range](), 0
    for question in questions:
        numbers.append(range(count, count + len(question)))
        count += len(question)
    found: dict[int, Likelihood] = {}
    for batch in batches_by_tokens([_size(question) for question in questions], *batching):
        pairs = [pair for index in batch for pair in questions[index]]
        chosen = [number for index in batch for number in numbers[index]]
        parts = _parts(session, pairs, [index for index in batch for _ in questions[index]])
        found |= zip(chosen, _score(parts, pairs, chosen, show), strict=True)
        advance(len(batch))
    return [[found[number] for number in some] for some in numbers]


def _size(question: Sequence[Pair]) -> Size:
    """The context is read once, and padded to the longest; of a question with one pair, all of it is."""
    context, continuations = len(question[0].context), sum(len(pair.continuation) for pair in question)
    return Size(context + continuations) if len(question) == 1 else Size(context, continuations, len(question))


Part = tuple[Sequence[int], Any]


def _parts(session: Session, pairs: Sequence[Pair], groups: Sequence[int]) -> Iterable[Part]:
    sequences = [[*pair.context, *pair.continuation] for pair in pairs]
    num_last = [len(pair.continuation) for pair in pairs]
    if isinstance(session, SharesPrefix):
        shared = session.last_logits(sequences, num_last, groups)
        if shared is not None:
            return shared
    return _whole_sequences(session, sequences, num_last)


def _whole_sequences(session: Session, sequences: Sequence[list[int]], num_last: Sequence[int]) -> Iterator[Part]:
    """The same from a session that gives the logits of all positions."""
    import torch

    starts = [0, *accumulate(num_last)]
    for chunk in chunks_by_length([len(tokens) - 1 for tokens in sequences]):
        logits = session(padded([sequences[index][:-1] for index in chunk]))
        spans = [(len(sequences[index]) - 1 - num_last[index], len(sequences[index]) - 1) for index in chunk]
        kept = [each[begin:end] for each, (begin, end) in zip(logits, spans, strict=True)]
        yield [place for index in chunk for place in range(starts[index], starts[index + 1])], torch.cat(kept)


def _score(parts: Iterable[Part], pairs: list[Pair], numbers: list[int], show: Shown | None) -> list[Likelihood]:
    import torch

    ends = [0, *accumulate(len(pair.continuation) for pair in pairs)]
    targets = torch.tensor([token for pair in pairs for token in pair.continuation])
    nats, greedy = torch.zeros(len(targets), dtype=torch.float64), torch.zeros(len(targets), dtype=torch.bool)
    gathered = None if show is None else _Gathered(show, numbers, ends)
    for places, logits in parts:
        if not len(places):
            continue
        at = torch.as_tensor(places)
        nats[at], greedy[at] = token_scores(logits, targets[at])
        if gathered is not None:
            gathered.add(places, logits)
    return [_likelihood(nats[begin:end], greedy[begin:end]) for begin, end in pairwise(ends)]


class _Gathered:
    """Logits of pairs that come in parts, shown as soon as all of a pair's are there."""

    def __init__(self, show: Shown, numbers: list[int], ends: list[int]) -> None:
        self._show, self._numbers, self._ends = show, numbers, ends
        self._pieces: dict[int, list[tuple[int, torch.Tensor]]] = {}

    def add(self, places: Sequence[int], logits: torch.Tensor) -> None:
        at = 0
        while at < len(places):
            place = places[at]
            pair = bisect_right(self._ends, place) - 1
            count = 1
            while at + count < len(places) and places[at + count] == place + count < self._ends[pair + 1]:
                count += 1
            self._add_piece(pair, place, logits[at : at + count])
            at += count

    def _add_piece(self, pair: int, place: int, logits: torch.Tensor) -> None:
        import torch

        pieces = self._pieces.setdefault(pair, [])
        pieces.append((place, logits))
        if sum(len(piece) for _, piece in pieces) == self._ends[pair + 1] - self._ends[pair]:
            ordered = [piece for _, piece in sorted(self._pieces.pop(pair), key=lambda piece: piece[0])]
            whole = ordered[0] if len(ordered) == 1 else torch.cat(ordered)
            self._show(self._numbers[pair], whole.unsqueeze(0))


def _likelihood(nats: torch.Tensor, greedy: torch.Tensor) -> Likelihood:
    total = -float(nats.sum())
    if not math.isfinite(total):
        raise NotFiniteError("the model gave logits that are not finite", do="Try bfloat16 or a milder setting.")
    return Likelihood(total, int(greedy.sum()))


def token_scores(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Nats of each target (float64), and whether it is the likeliest (the first of equals), for logits (targets x
    vocabulary); on the host. Not finite where the logits aren't.
    """
    import torch

    nats, greedy = [], []
    with torch.inference_mode():
        for part, wanted in _chunks(logits, targets.to(logits.device)):
            at = wanted.unsqueeze(-1)
            nats.append(-part.log_softmax(-1).gather(-1, at).squeeze(-1))
            is_largest = part.gather(-1, at).squeeze(-1) >= part.amax(-1)  # far cheaper than argmax, which settles ties
            is_largest[is_largest.clone()] = part[is_largest].argmax(-1) == wanted[is_largest]
            greedy.append(is_largest)
        return torch.cat(nats).double().cpu(), torch.cat(greedy).cpu()


def _chunks(logits: torch.Tensor, targets: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    size = max(1, _CHUNK // logits.shape[-1])
    for begin in range(0, len(targets), size):
        yield logits[begin : begin + size].float(), targets[begin : begin + size]
