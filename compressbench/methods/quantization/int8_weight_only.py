"""`int8-weight-only`: int8 weights, activations as they are."""

from __future__ import annotations

from typing import ClassVar

from compressbench.core.protocols import Facts
from compressbench.methods.step import LinearStep, quantized_claim
from compressbench.models.handle import ModelHandle


class Int8WeightOnly(LinearStep):
    """W8A16 (or A32): one symmetric scale per output channel, rounding to nearest.

    A quarter of float32's bytes. Fast only where a kernel takes int8 weights: on CPU after `cast: bfloat16`; with
    float32 activations every call dequantizes and is slower than the baseline.
    """

    facts: ClassVar[Facts] = Facts(paper="arXiv:2206.01861")

    def weights_after(self, weights: str) -> str:
        return "int8"

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.methods.maths.integers import per_channel_symmetric
        from compressbench.models.int8_linear import Int8WeightLinear
        from compressbench.models.parts import bias_of, matrix, replace_module

        choice = self.choose(handle)
        for name, module in choice.modules.items():
            codes, scale = per_channel_symmetric(matrix(module))
            replace_module(handle.model, name, Int8WeightLinear(codes, scale, bias_of(module)))
        has_kernel = handle.weights == "bfloat16" and handle.device == "cpu"
        kernel = "int8pack_mm" if has_kernel else "dequantize"
        claim = quantized_claim("int8-weight-only", choice, 8, kernels=(kernel,) if has_kernel else ())
        return handle.with_model(
            handle.model, weights="int8", claim=claim, num_modules=len(choice.modules), kernel=kernel
        )
