"""`bnb-int8`: LLM.int8(), int8 weights and activations with the outlier columns apart, computed by bitsandbytes."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from compressbench.core.protocols import Facts
from compressbench.methods.step import LinearStep, quantized_claim
from compressbench.models.handle import ModelHandle


class BnbInt8(LinearStep):
    """LLM.int8() (Dettmers et al. 2022), as the library computes it: any linear module, of any shape.

    Weights are rounded row by row and activations token by token, both by way of float16: a float32 model is cast in
    every call (the library says so in a warning each time, which is silenced), and weights beyond 65,504 are lost. Sums
    are int32, scaled in float32, and given out in the activations' own type. Columns of activations in which some value
    reaches `llm_int8_threshold` are multiplied in the activations' type; 0 rounds every column, which collapses large
    language models. The outlier columns of the weights are rounded all the same.
    """

    facts: ClassVar[Facts] = Facts(requires=("bitsandbytes",), paper="arXiv:2208.07339")

    llm_int8_threshold: float = Field(6.0, ge=0, description="columns that reach this |x| are not rounded; 0: none")

    def weights_after(self, weights: str) -> str:
        return "int8"

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.models.bnb_linear import BnbInt8Linear
        from compressbench.models.parts import bias_of, matrix, replace_module

        choice = self.choose(handle)
        for name, module in choice.modules.items():
            layer = BnbInt8Linear.quantize(matrix(module), bias_of(module), self.llm_int8_threshold)
            replace_module(handle.model, name, layer)
        kernels = ("bitsandbytes::int8_scaled_mm", "bitsandbytes::int8_mixed_scaled_mm")
        claim = quantized_claim("bnb-int8", choice, 8, kernels=kernels)
        return handle.with_model(handle.model, weights="int8", claim=claim, num_modules=len(choice.modules))
