"""A linear layer of low-bit weights, really packed: its bytes follow the bit width, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from torch import nn
from torch.nn import functional

from compressbench.models.bit_packing import pack, unpack
from compressbench.models.quantized_weight import QuantizedWeight
from compressbench.models.stored_layer import Layout, StoredLayer


class PackedLinear(StoredLayer):
    """y = x Wᵀ + bias, W unpacked and dequantized in every call to the activations' type: less memory, not less time.

    `input_scale` (in,) divides the activations first (AWQ and SmoothQuant where no layer before could take it).
    """

    kind: ClassVar[str] = "packed"

    packed: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None
    group_of: torch.Tensor | None
    codebook: torch.Tensor | None
    input_scale: torch.Tensor | None

    def __init__(
        self, quantized: QuantizedWeight, bias: torch.Tensor | None = None, input_scale: torch.Tensor | None = None
    ) -> None:
        super().__init__(quantized.codes.shape[1], quantized.codes.shape[0])
        self.bits, self.group_size = quantized.bits, quantized.group_size
        self.has_integer_zero = quantized.zero is not None and not quantized.zero.is_floating_point()
        zero = quantized.zero
        self.register_buffer("packed", pack(quantized.codes, self.bits))
        self.register_buffer("scale", quantized.scale.detach().clone())
        self.register_buffer("zero", pack(cast(torch.Tensor, zero), self.bits) if self.has_integer_zero else zero)
        self.register_buffer("group_of", quantized.group_of)
        self.register_buffer("codebook", quantized.codebook)
        self.register_buffer("input_scale", input_scale)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    def quantized(self) -> QuantizedWeight:
        """The codes, scales and zero points, unpacked."""
        zero = self.zero
        if zero is not None and self.has_integer_zero:
            zero = unpack(zero, self.bits, self.scale.shape[1])
        return QuantizedWeight(
            codes=unpack(self.packed, self.bits, self.in_features),
            scale=self.scale,
            bits=self.bits,
            group_size=self.group_size,
            zero=zero,
            group_of=self.group_of,
            codebook=self.codebook,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.input_scale is not None:
            x = x / self.input_scale.to(x.dtype)
        return functional.linear(x, self.quantized().dequantize(x.dtype), self.bias)

    def dequantized(self) -> torch.Tensor:
        weight = self.quantized().dequantize()
        return weight if self.input_scale is None else weight / self.input_scale.float()

    def layout(self) -> Layout:
        return {"bits": self.bits, "group_size": self.group_size, "in_features": self.in_features}

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        names = ("packed", "scale", "zero", "group_of", "codebook", "input_scale", "bias")
        tensors = {name: getattr(self, name) for name in names}
        return {name: tensor.detach() for name, tensor in tensors.items() if tensor is not None}

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> PackedLinear:
        bits, columns = cast(int, layout["bits"]), cast(int, layout["in_features"])
        zero = tensors.get("zero")
        if zero is not None and not zero.is_floating_point():
            zero = unpack(zero, bits, tensors["scale"].shape[1])
        quantized = QuantizedWeight(
            codes=unpack(tensors["packed"], bits, columns),
            scale=tensors["scale"],
            bits=bits,
            group_size=cast(int, layout["group_size"]),
            zero=zero,
            group_of=tensors.get("group_of"),
            codebook=tensors.get("codebook"),
        )
        return cls(quantized, tensors.get("bias"), tensors.get("input_scale"))
