"""Samples and token lists into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from compressbench.core.errors import ModelError
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch


_UNSET_LENGTH = 10**20
"""What a tokenizer gives as its length where it has none is larger."""


class Size(NamedTuple):
    """What an entry of a batch costs: tokens that are padded to the longest of the batch, and others; and how many
    sequences it is.
    """

    padded: int
    extra: int = 0
    sequences: int = 1


def batches_in_order(num_samples: int, batch_size: int) -> list[range]:
    """Indices in batches of `batch_size`, the last one perhaps smaller, in the order of the data."""
    return [range(start, min(start + batch_size, num_samples)) for start in range(0, num_samples, batch_size)]


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of at most `batch_size`, longest first, so that padding is little and memory peaks early."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def batches_by_tokens(sizes: Sequence[Size], batch_size: int, token_budget: int) -> list[list[int]]:
    """Indices in batches of at most `batch_size` sequences and `token_budget` tokens, padding included, longest first.

    What alone is larger than both is a batch of its own.
    """
    batches: list[list[int]] = []
    longest = sequences = extra = 0
    for index in sorted(range(len(sizes)), key=lambda index: (*(-part for part in sizes[index]), index)):
        size = sizes[index]
        num_tokens = (len(batches[-1]) + 1) * longest + extra + size.extra if batches else 0
        if not batches or sequences + size.sequences > batch_size or num_tokens > token_budget:
            batches.append([])
            longest, sequences, extra = size.padded, 0, 0
        batches[-1].append(index)
        sequences, extra = sequences + size.sequences, extra + size.extra
    return batches


def shuffled_batches(lengths: Sequence[int], batch_size: int, seed: int) -> list[list[int]]:
    """Indices in batches of similar length, the batches in random order; `seed` decides both."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pool = batch_size * 50
    batches = [
        batch
        for start in range(0, len(order), pool)
        for batch in _sorted_slices(order[start : start + pool], lengths, batch_size)
    ]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def _sorted_slices(indices: list[int], lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    indices = sorted(indices, key=lambda index: lengths[index])
    yield from (indices[start : start + batch_size] for start in range(0, len(indices), batch_size))


def require_positions(handle: ModelHandle, num_tokens: int, do: str) -> None:
    """Raise ModelError if the model can't read so many tokens at once; on CUDA that would poison the whole process."""
    longest = getattr(handle.model.config, "max_position_embeddings", None)
    if longest is not None and num_tokens > longest:
        raise ModelError(
            f"the model reads at most {longest} tokens at once",
            where=handle.source.id,
            got=f"{num_tokens} tokens",
            do=do,
        )


def longest_input(handle: ModelHandle, max_length: int | None) -> int:
    """How many tokens are read at once: `max_length`, or else what the model's configuration says, or its tokenizer's,
    or 2048, as lm-evaluation-harness has it.
    """
    if max_length is not None:
        return max_length
    config = handle.model.config.get_text_config()
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if (length := getattr(config, name, None)) is not None:
            return int(length)
    length = handle.tokenizer.model_max_length
    return 2048 if length > _UNSET_LENGTH else int(length)


def padded(rows: Sequence[Sequence[int]], side: Literal["left", "right"] = "right") -> dict[str, torch.Tensor]:
    """Token ids and their mask, (rows x longest), with zeros on one side; needs no padding token, for none is seen."""
    import torch

    longest = max(len(row) for row in rows)
    ids, mask = (torch.zeros(len(rows), longest, dtype=torch.int64) for _ in range(2))
    for at, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[at, place], mask[at, place] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


def pad(encoded: Sequence[dict[str, list[int]]], tokenizer: Any) -> dict[str, torch.Tensor]:
    """Encodings of one batch padded to the longest of them: name -> (batch x length, int64)."""
    return dict(tokenizer.pad(list(encoded), return_tensors="pt"))


def encode(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int
) -> list[dict[str, list[int]]]:
    """One dictionary of token lists per text, truncated to `max_length` tokens."""
    encoded = tokenizer(list(texts), None if pairs is None else list(pairs), truncation=True, max_length=max_length)
    return [{name: encoded[name][index] for name in encoded} for index in range(len(texts))]
