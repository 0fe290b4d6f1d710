"""Attention as ONNX Runtime's own fused operators, written into the graph while it is exported.

Encoders get MultiHeadAttention with a padding mask; decoders GroupQueryAttention, which writes new keys and values into
the cache in place where the session binds one buffer as its past and its present.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compressbench.models.export_wrappers import Attention

DOMAIN = "com.microsoft"


def attend_with_fused(call: Attention) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """An `models.export_wrappers.Attend`; only for export, since PyTorch can't compute these operators."""
    return (_encoder(call), None) if call.past is None else _decoder(call, call.past)


def _encoder(call: Attention) -> Tensor:
    rows, heads, length, size = call.query.shape
    key, value = (_repeated(each, heads) for each in (call.key, call.value))
    padding = None if call.padding is None else call.padding.to(torch.int32)
    bias = call.bias
    if bias is not None and bias.shape[1] not in (1, heads):
        bias = bias.expand(-1, heads, -1, -1)
    found = torch.onnx.ops.symbolic(
        f"{DOMAIN}::MultiHeadAttention",
        [_flat(call.query), _flat(key), _flat(value), None, padding, bias],
        {
            "num_heads": heads,
            "scale": call.scale,
            "unidirectional": int(call.is_causal),
            "mask_filter_value": torch.finfo(torch.float32).min,
        },
        dtype=call.query.dtype,
        shape=(rows, length, heads * size),
        version=1,
    )
    return found.reshape(rows, length, heads, size)


def _decoder(call: Attention, past: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    rows, heads, length, size = call.query.shape
    key_heads = call.key.shape[1]
    assert call.padding is not None  # noqa: S101 -- a decoder's graph has always a mask
    total = call.padding.shape[1]
    bias = _bias_with_padding(call, call.padding)
    last = torch.full((rows,), total - 1, dtype=torch.int32)
    whole = torch.full((), total, dtype=torch.int32)
    found, keys, values = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::GroupQueryAttention",
        [
            _flat(call.query), _flat(call.key), _flat(call.value), *past, last, whole,
            None, None, None, bias.expand(-1, -1, length, -1),
        ],
        {"num_heads": heads, "kv_num_heads": key_heads, "scale": call.scale},
        dtypes=[call.query.dtype] * 3,
        shapes=[
            (rows, length, heads * size),
            (rows, key_heads, total, size),
            (rows, key_heads, total, size),
        ],
        version=1,
    )  # fmt: skip
    return found.reshape(rows, length, heads, size), (keys, values)


def _bias_with_padding(call: Attention, padding: Tensor) -> Tensor:
    """Padding and the model's own bias in one (batch x heads or 1 x length or 1 x keys)."""
    lowest = torch.finfo(call.query.dtype).min
    shut = torch.where(padding[:, None, None, :], 0.0, lowest).to(call.query.dtype)
    return shut if call.bias is None else (call.bias + shut).clamp(min=lowest)


def _flat(tensor: Tensor) -> Tensor:
    """batch x heads x length x size as batch x length x (heads * size)."""
    return tensor.transpose(1, 2).flatten(2)


def _repeated(tensor: Tensor, heads: int) -> Tensor:
    return tensor if tensor.shape[1] == heads else tensor.repeat_interleave(heads // tensor.shape[1], 1)
