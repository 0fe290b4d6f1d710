"""An embedding table of low-bit rows, each with a scale and a smallest value of its own, as PyTorch's kernels read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch

from compressbench.models.stored_embedding import StoredEmbedding
from compressbench.models.stored_layer import Layout

BITS = (2, 4, 8)
_KINDS = {8: "byte", 4: "4bit", 2: "2bit"}
_NUM_BINS, _RATIO = 200, 0.16
"""Of the search for a row's range: the defaults of PyTorch's operator, which are those of arXiv:1911.02079."""


class RowwiseEmbedding(StoredEmbedding):
    """row = codes * scale + zero, dequantized when it is looked up, and only then.

    `fused` (rows x bytes, uint8) has in each row its codes, the first in the lowest bits, and then `scale` and `zero`:
    float32 at 8 bits, float16 at 4 and 2. On CPU one operator looks up and dequantizes; elsewhere rows are gathered and
    unpacked with plain tensor operations. The result has the type of the model around it.
    """

    kind: ClassVar[str] = "rowwise-embedding"

    fused: torch.Tensor
    like: torch.Tensor

    def __init__(self, fused: torch.Tensor, bits: int, embedding_dim: int, dtype: torch.dtype) -> None:
        super().__init__(len(fused), embedding_dim)
        self.bits = bits
        self.register_buffer("fused", fused.contiguous())
        # without elements: what casts the model changes its type, which is the type of what is looked up
        self.register_buffer("like", torch.empty(0, dtype=dtype, device=fused.device))

    @classmethod
    def quantize(cls, weight: torch.Tensor, bits: int, *, search: bool = False) -> RowwiseEmbedding:
        """Round each row of `weight` (rows x columns) to the nearest of 2**bits steps from its smallest to its largest
        value, or with `search` over a narrower range wherever that has a smaller squared error.

        Raises ValueError if the codes of a row don't fill whole bytes.
        """
        if weight.shape[1] * bits % 8:
            raise ValueError(f"{weight.shape[1]} values of {bits} bits don't fill whole bytes")
        prepack = getattr(torch.ops.quantized, f"embedding_bag_{_KINDS[bits]}_prepack")
        rows = weight.detach().float().cpu().contiguous()
        fused = prepack(rows) if bits == 8 else prepack(rows, search, _NUM_BINS, _RATIO)
        return cls(fused.to(weight.device), bits, weight.shape[1], weight.dtype)

    @property
    def code_bytes(self) -> int:
        """Of one row, without its scale and zero."""
        return self.embedding_dim * self.bits // 8

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(... x embedding_dim) of ids (...)."""
        flat = ids.reshape(-1).contiguous()
        rows = self._on_cpu(flat) if self.fused.device.type == "cpu" else self._dequantize(self.fused[flat])
        return rows.to(self.like.dtype).reshape(*ids.shape, self.embedding_dim)

    def _on_cpu(self, ids: torch.Tensor) -> torch.Tensor:
        look_up = getattr(torch.ops.quantized, f"embedding_bag_{_KINDS[self.bits]}_rowwise_offsets")
        # bags of one row each
        found: torch.Tensor = look_up(self.fused, ids, torch.arange(len(ids), dtype=ids.dtype))
        return found

    def _dequantize(self, fused: torch.Tensor) -> torch.Tensor:
        codes, scale, zero = self._parts(fused)
        shifts = torch.arange(0, 8, self.bits, dtype=torch.uint8, device=fused.device)
        unpacked = ((codes[:, :, None] >> shifts) & (2**self.bits - 1)).flatten(1)
        rows: torch.Tensor = unpacked.float() * scale.float() + zero.float()
        return rows

    def _parts(self, fused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Codes (rows x code_bytes, uint8), scale and zero (rows x 1)."""
        codes, rest = fused[:, : self.code_bytes], fused[:, self.code_bytes :]
        numbers = rest.contiguous().view(torch.float32 if self.bits == 8 else torch.float16)
        return codes, numbers[:, :1], numbers[:, 1:]

    def dequantized(self) -> torch.Tensor:
        return self._dequantize(self.fused)

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        codes, scale, zero = self._parts(self.fused)
        return {"codes": codes, "scale": scale, "zero": zero}

    def layout(self) -> Layout:
        return {
            "bits": self.bits,
            "embedding_dim": self.embedding_dim,
            "dtype": str(self.like.dtype).removeprefix("torch."),
        }

    @classmethod
    def restore(cls, layout: Layout, tensors: Mapping[str, torch.Tensor]) -> RowwiseEmbedding:
        numbers = torch.cat([tensors["scale"], tensors["zero"]], dim=1).contiguous().view(torch.uint8)
        fused = torch.cat([tensors["codes"], numbers], dim=1)
        dtype = getattr(torch, cast(str, layout["dtype"]))
        return cls(fused, cast(int, layout["bits"]), cast(int, layout["embedding_dim"]), dtype)
