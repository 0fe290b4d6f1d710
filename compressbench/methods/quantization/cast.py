"""`cast`: the whole model in half precision."""

from __future__ import annotations

from typing import ClassVar, Literal

from compressbench.core.protocols import Claim, Facts
from compressbench.methods.step import Step
from compressbench.models.handle import ModelHandle


class Cast(Step):
    """Weights and activations in bfloat16 or float16.

    bfloat16 keeps float32's range with 8 significant bits (Kalamkar et al. 2019); it is the rival every quantized model
    has to beat. float16 has 11 bits and overflows above 65,504.
    """

    facts: ClassVar[Facts] = Facts(paper="arXiv:1905.12322")

    dtype: Literal["bfloat16", "float16"] = "bfloat16"

    def weights_after(self, weights: str) -> str:
        return self.dtype

    def apply(self, handle: ModelHandle) -> ModelHandle:
        import torch

        from compressbench.models.parts import cast_weights, target_linears

        cast_weights(handle.model, getattr(torch, self.dtype))
        handle.model.config.dtype = self.dtype
        modules = tuple(target_linears(handle.model))
        claim = Claim(step="cast", modules=modules, bits=16, is_smaller=handle.weights == "float32")
        return handle.with_model(handle.model, weights=self.dtype, claim=claim)
