"""A linear layer of float8 weights and activations, each row with its own scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from compressbench.models.stored_layer import Layout, StoredLayer

LARGEST = 448.0
_TILE = 16


def quantize_rows(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (rows x columns, float8_e4m3fn) and scales (rows, float32) with matrix ≈ codes * scale.

    The scale puts the row's largest value at 448, the largest of e4m3; more would become NaN.
    """
    scale = (matrix.detach().float().abs().amax(dim=1) / LARGEST).clamp_min(1e-12)
    codes = (matrix.detach().float() / scale[:, None]).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return codes, scale


def reference(x: torch.Tensor, weight: torch.Tensor, weight_scale: torch.Tensor) -> torch.Tensor:
    """What the kernel should compute, in float64: x (rows x in) rounded by row, times weightᵀ (out x in): rows x out."""
    codes, scale = quantize_rows(x)
    left, right = codes.double() * scale.double()[:, None], weight.double() * weight_scale.double()[:, None]
    return left @ right.t()


def misfit(in_features: int, out_features: int) -> str:
    """Why the kernel can't take this shape; "" if it can."""
    odd = [f"{size} {name}" for name, size in (("inputs", in_features), ("outputs", out_features)) if size % _TILE]
    return f"{' and '.join(odd)} are no multiple of {_TILE}" if odd else ""


class Fp8Linear(StoredLayer):
    """y = x Wᵀ + bias by torch._scaled_mm: e4m3 weights with a scale per output, x rounded anew per row in every call.

    The kernel gives bfloat16, which becomes the type of x. Stored: codes (out x in, float8_e4m3fn), scale (out,
    float32), bias.
    """

    kind: ClassVar[str] = "fp8"

    codes: torch.Tensor
    scale: torch.Tensor

    def __init__(self, codes: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(codes.shape[1], codes.shape[0])
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes, scale = quantize_rows(x.reshape(-1, self.in_features))
        y = torch._scaled_mm(
            codes,
            self.codes.t(),
            scale_a=scale[:, None],
            scale_b=self.scale[None, :],
            out_dtype=torch.bfloat16,
        )
        y = y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def dequantized(self) -> torch.Tensor:
        return self.codes.float() * self.scale[:, None]

    def layout(self) -> Layout:
        return {}

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        tensors = {"codes": self.codes, "scale": self.scale}
        return tensors if self.bias is None else {**tensors, "bias": self.bias.detach()}

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> Fp8Linear:
        return cls(tensors["codes"], tensors["scale"], tensors.get("bias"))
