"""`safetensors`: a folder that transformers loads without compressbench, every layer a plain one again.

Weights that were packed are written as the numbers that they stand for: nothing of the saving in bytes is left, and all of
the change in quality is.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressbench.core.errors import UnsupportedError
from compressbench.models.handle import ModelHandle
from compressbench.models.parts import replace_module
from compressbench.models.quiet import quiet
from compressbench.models.stored_embedding import StoredEmbedding
from compressbench.models.stored_layer import StoredLayer


def write(handle: ModelHandle, folder: Path) -> None:
    """Weights, configuration and tokenizer. Raises UnsupportedError for a layer that computes what no plain one does."""
    with quiet():
        dense_model(handle.model).save_pretrained(folder)
    handle.tokenizer.save_pretrained(folder)


def dense_model(model: nn.Module) -> Any:
    """The model itself if all its layers are plain, else a copy in which they are."""
    stored = [name for name, module in model.named_modules() if isinstance(module, StoredLayer)]
    if not stored:
        return model
    dense = copy.deepcopy(model)
    outer = [name for name in stored if not any(name.startswith(f"{each}.") for each in stored)]
    for name in outer:
        replace_module(dense, name, _plain(name, dense.get_submodule(name)))
    return dense


def _plain(name: str, layer: nn.Module) -> nn.Module:
    if isinstance(layer, StoredEmbedding):
        return _plain_table(layer)
    if getattr(layer, "input_scale", None) is not None:
        raise UnsupportedError(
            "a layer divides its inputs, which no plain layer does", where=name, do="Export it to onnx or openvino."
        )
    assert isinstance(layer, StoredLayer)  # noqa: S101 -- that is how it was found
    weight, bias = layer.dequantized(), getattr(layer, "bias", None)
    plain = nn.Linear(layer.in_features, layer.out_features, bias=bias is not None)
    plain.weight = nn.Parameter(weight.float().contiguous(), requires_grad=False)
    if bias is not None:
        plain.bias = nn.Parameter(bias.detach().to(torch.float32), requires_grad=False)
    return plain.to(_dtype_of(layer))


def _plain_table(table: StoredEmbedding) -> nn.Embedding:
    """In the type of the vectors that it gave."""
    rows = table.dequantized()
    with torch.inference_mode():
        given = table(torch.zeros(1, dtype=torch.int64, device=rows.device))
    plain = nn.Embedding(table.num_embeddings, table.embedding_dim, device="meta")
    plain.weight = nn.Parameter(rows.to(given.dtype), requires_grad=False)
    return plain


def _dtype_of(layer: nn.Module) -> torch.dtype:
    """What its bias, its scales or its model's norms are in; float32 where that says nothing."""
    bias = getattr(layer, "bias", None)
    return bias.dtype if isinstance(bias, torch.Tensor) and bias.is_floating_point() else torch.float32
