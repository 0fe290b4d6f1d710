"""A batch of model inputs as what a graph of OpenVINO takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import torch

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Batch

_READABLE = {torch.int64, torch.int32, torch.float32}
_NOT_NEEDED = {"labels", "token_type_ids"}


def feed_for(inputs: Sequence[str], *, is_decoder: bool) -> Callable[[Batch], Mapping[str, Any]]:
    """What turns a calibration batch into arrays by the names of the graph's inputs."""

    def feed(batch: Batch) -> Mapping[str, Any]:
        found = whole_texts(batch) if is_decoder else map(as_array, encoder_inputs(batch, inputs))
        return dict(zip(inputs, found, strict=True))

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


def whole_texts(batch: Batch) -> tuple[Any, ...]:
    """A decoder's inputs for the logits of all positions, which are counted from the first column as transformers does."""
    _require_known(batch, ("input_ids", "attention_mask", "position_ids"))
    ids, mask = as_array(batch["input_ids"]), as_array(mask_of(batch))
    where = numpy.arange(ids.shape[1])
    positions = as_array(batch["position_ids"]) if "position_ids" in batch else where[None].repeat(len(ids), axis=0)
    return texts(ids, mask, positions, where)


def texts(ids: Any, mask: Any, positions: Any, wanted: Any) -> tuple[Any, ...]:
    """A decoder's inputs for texts from their beginning (batch x length): what is later, or padding, is not seen.

    Every position sees itself: one that sees nothing would be no number, and spread. In NumPy, because torch wakes threads
    of its own for a small triangle, which then stand in the engine's way.
    """
    rows, length = ids.shape
    visible = numpy.tri(length, dtype=bool) & mask.astype(bool)[:, None, None, :]
    visible |= numpy.eye(length, dtype=bool)
    added = numpy.where(visible, numpy.float32(0), -numpy.float32(numpy.inf))
    return ids, added, positions, wanted, numpy.arange(rows, dtype=numpy.int32)


def as_array(tensor: torch.Tensor) -> Any:
    """The tensor's memory, if the engine can read it as it is: contiguous, int64, int32 or float32; else a copy."""
    is_ready = tensor.dtype in _READABLE and tensor.device.type == "cpu" and tensor.is_contiguous()
    if is_ready and not tensor.requires_grad:
        return tensor.numpy()
    if tensor.is_floating_point():
        tensor = tensor.float()
    return tensor.detach().cpu().contiguous().numpy()
