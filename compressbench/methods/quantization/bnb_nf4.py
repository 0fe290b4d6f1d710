"""`bnb-nf4`: 4-bit NormalFloat weights in blocks, computed by bitsandbytes; and what it shares with `bnb-fp4`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from compressbench.core.protocols import Facts
from compressbench.methods.step import LinearStep, quantized_claim
from compressbench.models.handle import ModelHandle


class Bnb4Bit(LinearStep):
    """The data types of QLoRA (Dettmers et al. 2023): codebook[code] * absmax of a block of neighbours along the inputs.

    Activations are multiplied in `bnb_4bit_compute_dtype`; outputs keep the model's type. Double quantization stores
    the scales in 8 bits: 4.127 bits per weight instead of 4.5 with blocks of 64. bfloat16 has a fused kernel on CUDA and
    on CPUs with AVX512-BF16 (outputs a multiple of 32); anything else dequantizes in every call.
    """

    facts: ClassVar[Facts] = Facts(requires=("bitsandbytes",), paper="arXiv:2305.14314")
    step: ClassVar[str]
    quant_type: ClassVar[str]

    bnb_4bit_use_double_quant: bool = Field(False, description="the scales in 8 bits, too")
    bnb_4bit_compute_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    blocksize: Literal[32, 64, 128, 256, 512] = Field(64, description="weights that share a scale")

    def weights_after(self, weights: str) -> str:
        return "packed"

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.models.bnb_linear import Bnb4Linear
        from compressbench.models.parts import bias_of, fitting, matrix, replace_module

        choice = fitting(self.choose(handle), self._misfit)
        layout = {
            "quant_type": self.quant_type,
            "blocksize": self.blocksize,
            "compute_dtype": self.bnb_4bit_compute_dtype,
        }
        for name, module in choice.modules.items():
            layer = Bnb4Linear.quantize(matrix(module), bias_of(module), layout, self.bnb_4bit_use_double_quant)
            replace_module(handle.model, name, layer)
        kernels = ("bitsandbytes::gemv_4bit", "bitsandbytes::gemm_4bit")
        claim = quantized_claim(self.step, choice, 4, kernels=kernels)
        return handle.with_model(handle.model, weights="packed", claim=claim, num_modules=len(choice.modules))

    def _misfit(self, columns: int, rows: int) -> str:
        # a block across two rows is dequantized wrongly by bitsandbytes 0.50.2 on CPU
        return (
            "" if columns % self.blocksize == 0 else f"{columns} inputs are no multiple of blocksize {self.blocksize}"
        )


class BnbNf4(Bnb4Bit):
    """NF4: the 16 values are quantiles of a normal distribution, scaled so that the outermost are -1 and 1."""

    step: ClassVar[str] = "bnb-nf4"
    quant_type: ClassVar[str] = "nf4"
