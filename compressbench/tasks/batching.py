"""Token lists into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from compressbench.core.errors import ModelError
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of at most `batch_size`, longest first, so that padding is little and memory peaks early."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


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


def pad(encoded: Sequence[dict[str, list[int]]], tokenizer: Any) -> dict[str, torch.Tensor]:
    """Encodings of one batch padded to the longest of them: name -> (batch x length, int64)."""
    return dict(tokenizer.pad(list(encoded), return_tensors="pt"))


def encode(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int
) -> list[dict[str, list[int]]]:
    """One dictionary of token lists per text, truncated to `max_length` tokens."""
    encoded = tokenizer(list(texts), None if pairs is None else list(pairs), truncation=True, max_length=max_length)
    return [{name: encoded[name][index] for name in encoded} for index in range(len(texts))]
