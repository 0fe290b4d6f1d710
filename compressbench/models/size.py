"""How big a model is: parameters, zeros, bytes resident and bytes on disk. Packed layers count as what they store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from compressbench.models.stored_layer import StoredLayer


class WeightCount(NamedTuple):
    """`num_parameters` and `num_zeros` are of weights and biases, not of scales; `num_bytes` of everything stored."""

    num_parameters: int
    num_zeros: int
    num_bytes: int
    has_opaque_weights: bool


def count_weights(model: nn.Module) -> WeightCount:
    """Count each tensor once, tied ones too."""
    layers = stored_layers(model)
    counts = [_count_layer(layer) for layer in layers.values()]
    counts += [(t.numel(), t.numel() - int(torch.count_nonzero(t)), t.nbytes) for t in plain_parameters(model)]
    parameters, zeros, num_bytes = (sum(column) for column in zip(*counts, strict=True))
    return WeightCount(
        parameters, zeros, num_bytes, any(getattr(module, "is_opaque", False) for module in model.modules())
    )


def _count_layer(layer: StoredLayer) -> tuple[int, int, int]:
    """Parameters, zeros and bytes of one stored layer. Its matrix exists only as long as its zeros are counted."""
    tensors = layer.stored_tensors()
    bias = tensors.get("bias")
    zeros = layer.num_weights - int(torch.count_nonzero(layer.dequantized()))
    parameters = layer.num_weights
    if bias is not None:
        parameters += bias.numel()
        zeros += bias.numel() - int(torch.count_nonzero(bias))
    return parameters, zeros, sum(tensor.nbytes for tensor in tensors.values())


def stored_layers(model: nn.Module) -> dict[str, StoredLayer]:
    """The layers that store their weights in a form of their own, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, StoredLayer) and not module.is_container
    }


def plain_parameters(model: nn.Module) -> Iterator[torch.Tensor]:
    """Every parameter outside of stored layers, those that share their memory once."""
    inside = tuple(f"{name}." for name in stored_layers(model))
    seen: set[int] = set()
    for name, tensor in model.named_parameters():
        if not name.startswith(inside) and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            yield tensor


def disk_bytes(model: nn.Module) -> int:
    """Bytes of weights and configuration as they are saved (safetensors), found by writing them."""
    from compressbench.models.artefact import write_model

    with tempfile.TemporaryDirectory() as folder:
        write_model(model, Path(folder))
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
