"""Codes of packed layers in llama.cpp's blocks of 32 weights with one float16 scale: Q8_0 and Q4_0, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from compressbench.models.packed_linear import PackedLinear

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

_BLOCK = 32
_KINDS = {8: "Q8_0", 4: "Q4_0"}


class Blocks(NamedTuple):
    """`codes` (out x in, uint8, the zero point 2**(bits - 1)), `scale` (out x in/32, float16)."""

    codes: torch.Tensor
    scale: torch.Tensor
    kind: str

    def packed(self, heads: int | None) -> np.ndarray:
        """Bytes, out x in/32 blocks: the scale, then 32 signed bytes (Q8_0) or 16 bytes, each of which has a code of the
        first half of the block in its low bits and one of the second half in its high ones (Q4_0).
        """
        codes, scale = self.codes, self.scale
        if heads is not None:
            codes, scale = permute_rows(codes, heads), permute_rows(scale, heads)
        codes = codes.reshape(len(codes), -1, _BLOCK)
        if self.kind == "Q8_0":
            numbers = (codes.to(torch.int16) - 128).to(torch.int8).view(torch.uint8)
        else:
            numbers = codes[..., : _BLOCK // 2] | codes[..., _BLOCK // 2 :] << 4
        scales = scale.contiguous().view(torch.uint8).reshape(*scale.shape, 2)
        found: np.ndarray = torch.cat([scales, numbers], dim=2).flatten(1).numpy()
        return found


def blocks_of(layer: nn.Module) -> Blocks | None:
    """The layer's codes if blocks hold them exactly: 4 or 8 bits around the middle, groups of whole blocks, scales that are
    float16 numbers. None for any other layer.
    """
    if not isinstance(layer, PackedLinear) or layer.bits not in _KINDS:
        return None
    if layer.group_of is not None or layer.codebook is not None or layer.input_scale is not None:
        return None
    groups = layer.scale.shape[1]
    size = layer.in_features if groups == 1 else layer.group_size
    quantized, scale = layer.quantized(), layer.scale.detach().cpu()
    is_symmetric = bool((quantized.zero_points() == 2 ** (layer.bits - 1)).all())
    is_whole = size % _BLOCK == 0 and layer.in_features == groups * size
    if not (is_symmetric and is_whole and torch.equal(scale.half().float(), scale.float())):
        return None
    return Blocks(quantized.codes.cpu(), scale.half().repeat_interleave(size // _BLOCK, dim=1), _KINDS[layer.bits])


def permute_rows(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries or keys in llama.cpp's order: a rotated pair is two neighbours there, and two halves of the head in
    transformers.
    """
    return rows.reshape(heads, 2, len(rows) // heads // 2, -1).transpose(1, 2).reshape(rows.shape)
