"""A linear layer of int4 weights in groups that PyTorch's own kernels multiply, on CPU and on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple, cast

import torch
from torch import nn

from compressbench.models.bit_packing import pack, unpack
from compressbench.models.stored_layer import Layout, StoredLayer

GROUP_SIZES = (32, 64, 128, 256)
_ROWS_AT_A_TIME = 64
_TILE_COLUMNS = 16


class Int4Weight(NamedTuple):
    """weight = (codes - 8) * scale + zero: codes out x in (uint8, 0..15), scale and zero out x groups (bfloat16)."""

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor

    def dequantize(self) -> torch.Tensor:
        """The matrix, out x in, float32."""
        size = self.codes.shape[1] // self.scale.shape[1]
        scale, zero = (part.float().repeat_interleave(size, dim=1) for part in (self.scale, self.zero))
        return (self.codes.float() - 8) * scale + zero


def quantize_int4(weight: torch.Tensor, group_size: int) -> Int4Weight:
    """Round each group of neighbours along the inputs to 16 steps between its smallest and its largest weight.

    scale and zero are rounded to bfloat16 first, so that the codes are the nearest on the grid that is stored. The grid
    has no exact zero: weights that pruning has made zero come back as small numbers.
    """
    groups = weight.detach().float().reshape(len(weight), -1, group_size)
    low, high = groups.amin(dim=2), groups.amax(dim=2)
    scale = ((high - low) / 15).clamp_min(1e-12).to(torch.bfloat16)
    zero = (low + 8 * scale.float()).to(torch.bfloat16)
    steps = (groups - zero.float()[:, :, None]) / scale.float()[:, :, None]
    codes = (steps.round() + 8).clamp(0, 15).to(torch.uint8).flatten(1)
    return Int4Weight(codes, scale, zero)


def misfit(in_features: int, out_features: int, group_size: int, device: str) -> str:
    """Why the kernel of `device` can't take this shape; "" if it can."""
    if in_features % group_size:
        return f"{in_features} inputs are no multiple of group_size {group_size}"
    rows = 8 if device.startswith("cuda") else 16
    return f"{out_features} outputs are no multiple of {rows}" if out_features % rows else ""


class Int4Linear(StoredLayer):
    """y = x Wᵀ + bias with 4-bit W, computed in bfloat16 whatever the type of x, which is also the output's.

    The codes are kept in the order of the device's kernel, which differs between devices and processors; what is stored
    has them row by row: codes (out x in/2, uint8, the first of two in the low bits), scale and zero (out x groups,
    bfloat16), bias. On CPU the kernels of other types are scalar loops, so they aren't used.
    """

    kind: ClassVar[str] = "int4"

    packed: torch.Tensor
    scale_and_zero: torch.Tensor

    def __init__(self, weight: Int4Weight, bias: torch.Tensor | None) -> None:
        super().__init__(weight.codes.shape[1], weight.codes.shape[0])
        self.group_size = self.in_features // weight.scale.shape[1]
        scale_and_zero = torch.stack([weight.scale, weight.zero], dim=2).transpose(0, 1).contiguous()
        self.register_buffer("packed", _to_kernel_order(weight.codes))
        self.register_buffer("scale_and_zero", scale_and_zero)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, self.in_features).to(torch.bfloat16).contiguous()
        on_cpu = rows.device.type == "cpu"
        multiply = torch.ops.aten._weight_int4pack_mm_for_cpu if on_cpu else torch.ops.aten._weight_int4pack_mm
        y: torch.Tensor = multiply(rows, self.packed, self.group_size, self.scale_and_zero)
        y = y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def quantized(self) -> Int4Weight:
        """The codes, scales and zeros that the layer multiplies with."""
        scale, zero = self.scale_and_zero.transpose(0, 1).unbind(dim=2)
        codes = _from_kernel_order(self.packed, self.out_features, self.in_features)
        return Int4Weight(codes, scale.contiguous(), zero.contiguous())

    def dequantized(self) -> torch.Tensor:
        return self.quantized().dequantize()

    def layout(self) -> Layout:
        return {"in_features": self.in_features}

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        weight = self.quantized()
        tensors = {"codes": pack(weight.codes, 4), "scale": weight.scale, "zero": weight.zero}
        return tensors if self.bias is None else {**tensors, "bias": self.bias.detach()}

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> Int4Linear:
        codes = unpack(tensors["codes"], 4, cast(int, layout["in_features"]))
        return cls(Int4Weight(codes, tensors["scale"], tensors["zero"]), tensors.get("bias"))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Int4Linear:
        # the scales tell where fn leads before the codes are moved
        if fn(self.scale_and_zero).device == self.scale_and_zero.device:
            return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]
        codes = self.quantized().codes
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.packed = _to_kernel_order(codes.to(self.packed.device))
        return self


def _to_kernel_order(codes: torch.Tensor) -> torch.Tensor:
    """Codes (out x in, uint8) as the kernel of their device wants them, two in a byte."""
    if codes.device.type == "cpu":
        return cast(torch.Tensor, torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32), 1))
    tiles = next(tiles for tiles in (8, 4, 2) if codes.shape[1] % (tiles * _TILE_COLUMNS) == 0)
    return cast(torch.Tensor, torch.ops.aten._convert_weight_to_int4pack(codes[:, ::2] << 4 | codes[:, 1::2], tiles))


def _from_kernel_order(packed: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The codes (rows x columns) that `_to_kernel_order` ordered.

    PyTorch has no inverse and its order depends on the processor. Blocks of 64 rows are ordered alike, one after the
    other, so the order is found by sending through it what says where it comes from: the index of each code within its
    block, four bits at a time.
    """
    nibbles = _nibbles(packed)
    codes = torch.empty(rows * columns, dtype=torch.uint8, device=packed.device)
    full = rows // _ROWS_AT_A_TIME * _ROWS_AT_A_TIME
    for start, stop, size in ((0, full, _ROWS_AT_A_TIME), (full, rows, rows - full)):
        if stop > start:
            blocks = nibbles[start * columns : stop * columns].view(-1, size * columns)
            order = _order_of(size, columns, packed.device)
            codes[start * columns : stop * columns].view(-1, size * columns)[:, order] = blocks
    return codes.view(rows, columns)


def _order_of(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """For each place in the kernel's order, the index of its code in a matrix of rows x columns."""
    index = torch.arange(rows * columns, device=device)
    order = torch.zeros_like(index)
    for shift in range(0, (rows * columns - 1).bit_length(), 4):
        digits = ((index >> shift) & 15).to(torch.uint8).view(rows, columns)
        order |= _nibbles(_to_kernel_order(digits)).long() << shift
    return order


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    data = packed.flatten().view(torch.uint8)
    return torch.stack([data & 15, data >> 4], dim=1).flatten()
