"""A batch of model inputs as what a graph of OpenVINO takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Batch

_NOT_NEEDED = {"labels", "token_type_ids"}


def feed_for(inputs: Sequence[str], *, is_decoder: bool) -> Callable[[Batch], Mapping[str, Any]]:
    """What turns a calibration batch into arrays by the names of the graph's inputs."""

    def feed(batch: Batch) -> Mapping[str, Any]:
        found = whole_texts(batch) if is_decoder else encoder_inputs(batch, inputs)
        return {name: as_array(tensor) for name, tensor in zip(inputs, found, strict=True)}

    return feed


def encoder_inputs(batch: Batch, names: Sequence[str]) -> list[torch.Tensor]:
    """Tensors in the graph's order; what a tokenizer may leave out has its usual value.

    Raises UnsupportedError for an input that the graph doesn't have: the answer would not depend on it.
    """
    _require_known(batch, names)
    return [batch[name] if name in batch else _usual(name, batch["input_ids"]) for name in names]


def _require_known(batch: Batch, names: Sequence[str]) -> None:
    unknown = batch.keys() - set(names) - _NOT_NEEDED
    if unknown:
        raise UnsupportedError("the exported model has no such input", got=", ".join(sorted(unknown)))


def _usual(name: str, ids: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(ids) if name == "attention_mask" else torch.zeros_like(ids)


def mask_of(batch: Batch) -> torch.Tensor:
    return batch["attention_mask"] if "attention_mask" in batch else torch.ones_like(batch["input_ids"])


def whole_texts(batch: Batch) -> tuple[torch.Tensor, ...]:
    """A decoder's inputs for the logits of all positions, which are counted from the first column as transformers does."""
    _require_known(batch, ("input_ids", "attention_mask", "position_ids"))
    ids = batch["input_ids"]
    where = torch.arange(ids.shape[1])
    positions = batch["position_ids"] if "position_ids" in batch else where.expand(ids.shape)
    return texts(ids, mask_of(batch), positions, where)


def texts(
    ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """A decoder's inputs for texts from their beginning (batch x length): what is later, or padding, is not seen.

    Every position sees itself: one that sees nothing would be no number, and spread.
    """
    rows, length = ids.shape
    visible = torch.ones(length, length, dtype=torch.bool).tril() & mask.bool()[:, None, None, :]
    visible |= torch.eye(length, dtype=torch.bool)
    added = torch.zeros(rows, 1, length, length).masked_fill(~visible, -torch.inf)
    return ids, added, positions, wanted, torch.arange(rows, dtype=torch.int32)


def as_array(tensor: torch.Tensor) -> Any:
    """The tensor's memory, if the engine can read it as it is: contiguous, int64, int32 or float32; else a copy."""
    if tensor.is_floating_point():
        tensor = tensor.float()
    return tensor.detach().cpu().contiguous().numpy()
