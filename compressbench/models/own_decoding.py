"""Decoding by a loop of our own, for engines that give the logits of one step: greedy by a fixed length, or whole texts.

The same rules as `models.writing` and the torch runtime, so that a text depends on the model and not on who runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from compressbench.core.errors import NotFiniteError
from compressbench.core.protocols import Batch, Decoding, Written
from compressbench.models.own_generation import ids_of
from compressbench.models.writing import StopStrings, sample, uniform_numbers, up_to_the_end

if TYPE_CHECKING:
    import torch


class Special(NamedTuple):
    """Tokens that end a text, and the one that fills up a row."""

    end: tuple[int, ...]
    padding: int


class Steps(Protocol):
    """A decoder with a key-value cache of its own."""

    def start(self, batch: Batch, num_tokens: int) -> Any:
        """Forget what was, read the left-padded prompts, and make room for `num_tokens` more positions: the logits of the
        last position (batch x vocabulary).
        """
        ...

    def step(self, tokens: Any) -> Any:
        """The logits (batch x vocabulary) after one more token per row (int64, batch)."""
        ...


class ArraySteps:
    """`Steps` whose work is done in NumPy, for engines on the CPU: a step of a small model takes half a millisecond, and a
    dozen calls of torch, whose code is cold after each pass of the engine, took as long again
    (benchmarks/runtime_overhead.py).
    """

    def prompt(self, batch: Batch, num_tokens: int) -> Any:
        """As `start`. The array is the caller's to write into."""
        raise NotImplementedError

    def next(self, ids: Any) -> Any:
        """As `step`; `ids` are batch x 1."""
        raise NotImplementedError

    def start(self, batch: Batch, num_tokens: int) -> torch.Tensor:
        import torch

        return torch.from_numpy(self.prompt(batch, num_tokens)).float()

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.from_numpy(self.next(tokens.numpy()[:, None])).float()


def special_tokens(model: Any, tokenizer: Any) -> Special:
    """Of the model's own generation_config, else of its tokenizer."""
    its_own = getattr(model, "generation_config", None)
    end = ids_of(getattr(its_own, "eos_token_id", None)) or ids_of(getattr(tokenizer, "eos_token_id", None))
    padding = ids_of(getattr(its_own, "pad_token_id", None)) or ids_of(getattr(tokenizer, "pad_token_id", None))
    return Special(tuple(end), (padding or end or [0])[0])


def greedy(
    steps: Steps, batch: Batch, num_tokens: int, never: Sequence[int], on_token: Callable[[], None] | None = None
) -> torch.Tensor:
    """Exactly `num_tokens` tokens after every prompt: ids (batch x (length + num_tokens)), on the host.

    `never` are tokens that aren't chosen: those that end a text, because no text may end before its last token.
    """
    import torch

    with torch.inference_mode():
        logits, found = steps.start(batch, num_tokens), [batch["input_ids"].cpu()]
        banned = torch.tensor(list(never), device=logits.device, dtype=torch.int64)
        for number in range(num_tokens):
            if never:
                logits.index_fill_(1, banned, -torch.inf)
            tokens = logits.argmax(dim=-1)
            found.append(tokens.cpu()[:, None])
            if on_token is not None:
                on_token()
            if number + 1 < num_tokens:
                logits = steps.step(tokens)
        return torch.cat(found, dim=1)


def greedy_arrays(
    steps: ArraySteps, batch: Batch, num_tokens: int, never: Sequence[int], on_token: Callable[[], None] | None = None
) -> torch.Tensor:
    """`greedy` in NumPy."""
    import numpy
    import torch

    prompt = batch["input_ids"].cpu().numpy()
    found = numpy.empty((len(prompt), prompt.shape[1] + num_tokens), dtype=numpy.int64)
    found[:, : prompt.shape[1]] = prompt
    logits = steps.prompt(batch, num_tokens)
    for at in range(prompt.shape[1], found.shape[1]):
        for token in never:
            logits[:, token] = -numpy.inf
        ids = logits.argmax(axis=1)[:, None]
        found[:, at : at + 1] = ids
        if on_token is not None:
            on_token()
        if at + 1 < found.shape[1]:
            logits = steps.next(ids)
    return torch.from_numpy(found)


def write(steps: Steps, tokenizer: Any, special: Special, batch: Batch, decoding: Decoding) -> list[Written]:
    """`num_samples` texts for each left-padded prompt, those of one prompt next to each other; see models.writing.write.

    Raises NotFiniteError if a logit is no number.
    """
    import torch

    mask = batch["attention_mask"]
    if not bool(mask[:, -1].all()):
        raise ValueError("prompts are padded on the left, so that they all end where the writing begins")
    prompts = [ids[kept.bool()].tolist() for ids, kept in zip(batch["input_ids"], mask, strict=True)]
    repeated = {name: tensor.repeat_interleave(decoding.num_samples, dim=0) for name, tensor in batch.items()}
    numbers = uniform_numbers(decoding, prompts) if decoding.temperature else None
    stop, ids = StopStrings(tokenizer, decoding.until, mask.shape[1]), repeated["input_ids"]
    has_ended, end = torch.zeros(len(ids), dtype=torch.bool), torch.tensor(special.end, dtype=torch.int64)
    with torch.inference_mode():
        logits = steps.start(repeated, decoding.max_new_tokens)
        for number in range(decoding.max_new_tokens):
            chosen = _chosen(logits, None if numbers is None else numbers[:, number], decoding).cpu()
            chosen[has_ended] = special.padding
            ids = torch.cat([ids, chosen[:, None]], dim=1)
            has_ended |= torch.isin(chosen, end)
            if decoding.until:
                has_ended |= stop(ids, None)
            if bool(has_ended.all()):
                break
            if number + 1 < decoding.max_new_tokens:
                logits = steps.step(chosen)
    rows = ids[:, mask.shape[1] :].tolist()
    return [up_to_the_end(row, stop.ends.get(at), special.end) for at, row in enumerate(rows)]


def _chosen(logits: torch.Tensor, numbers: torch.Tensor | None, decoding: Decoding) -> torch.Tensor:
    if bool((logits.isnan() | logits.isposinf()).any()):
        raise NotFiniteError("the model gave logits that are not finite", do="Try bfloat16 or a milder setting.")
    if numbers is None:
        return logits.argmax(dim=-1)
    return sample(logits, numbers.to(logits.device), decoding)
