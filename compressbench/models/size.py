"""How big a model is: parameters, zeros, bytes resident and bytes on disk. Packed layers count as what they store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from compressbench.models.int8_linear import Int8Linear
from compressbench.models.quiet import quiet


class WeightCount(NamedTuple):
    """`num_parameters` and `num_zeros` are of weights and biases, not of scales; `num_bytes` of everything stored."""

    num_parameters: int
    num_zeros: int
    num_bytes: int
    has_opaque_weights: bool


def count_weights(model: nn.Module) -> WeightCount:
    """Count each tensor once, tied ones too."""
    parameters = zeros = num_bytes = 0
    for name, tensor in _stored_tensors(model):
        num_bytes += tensor.numel() * tensor.element_size()
        if not name.endswith("weight_scale"):
            parameters += tensor.numel()
            zeros += tensor.numel() - int(torch.count_nonzero(tensor))
    return WeightCount(parameters, zeros, num_bytes, any(hasattr(module, "packed") for module in model.modules()))


def _stored_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    seen: set[int] = set()
    packed = tuple(name for name, module in model.named_modules() if isinstance(module, Int8Linear))
    for name in packed:
        for part, tensor in model.get_submodule(name).stored_tensors().items():  # type: ignore[operator]
            yield f"{name}.{part}", tensor
    for name, tensor in model.named_parameters():
        is_packed = name.rpartition(".")[0] in packed
        if not is_packed and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            yield name, tensor


def disk_bytes(model: nn.Module) -> int:
    """Bytes of weights and configuration as save_pretrained writes them (safetensors), found by writing them."""
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            model.save_pretrained(folder)  # type: ignore[operator]
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
