"""`int4-weight-only`: 4-bit weights in groups, multiplied by PyTorch's own kernels."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from compressbench.core.protocols import Facts
from compressbench.methods.step import LinearStep, quantized_claim
from compressbench.models.handle import ModelHandle


class Int4WeightOnly(LinearStep):
    """W4A16: asymmetric rounding to nearest in groups along the inputs, bfloat16 scale and zero per group.

    4 + 32 / group_size bits per weight. The kernels compute in bfloat16; a float32 model's activations are cast in every
    call and the outputs cast back. On CPU they pay for few rows (decoding); at a hundred rows and more bfloat16 itself
    is faster. Grid of PyTorch's tinygemm kernels: w = (q - 8) * scale + zero, without an exact zero, so sparsity of an
    earlier step is lost.
    """

    facts: ClassVar[Facts] = Facts(accepts=frozenset({"float32", "bfloat16"}), paper="arXiv:2206.01861")

    group_size: Literal[32, 64, 128, 256] = Field(128, description="weights that share a scale and a zero")

    def weights_after(self, weights: str) -> str:
        return "packed"

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.models.int4_linear import Int4Linear, misfit, quantize_int4
        from compressbench.models.parts import bias_of, fitting, matrix, replace_module

        choice = fitting(
            self.choose(handle), lambda columns, rows: misfit(columns, rows, self.group_size, handle.device)
        )
        for name, module in choice.modules.items():
            layer = Int4Linear(quantize_int4(matrix(module), self.group_size), bias_of(module))
            replace_module(handle.model, name, layer)
        claim = quantized_claim("int4-weight-only", choice, 4, kernels=("_weight_int4pack_mm",))
        return handle.with_model(handle.model, weights="packed", claim=claim, num_modules=len(choice.modules))
