"""`hqq`: half-quadratic quantization, zero points that are fitted to the weights without data."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from compressbench.core.protocols import Facts
from compressbench.methods.quantization.packed_step import naming, packed_handle, put_packed
from compressbench.methods.step import LinearStep
from compressbench.models.handle import ModelHandle


class Hqq(LinearStep):
    """HQQ (Badri & Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models").

    Minimises the sum of |W - dequantized|^p over the zero points, which are floating; groups run along the input features
    (the library's axis=1, the one with fast kernels). Zeros of a model that was pruned before do not stay zero.
    """

    facts: ClassVar[Facts] = Facts(paper="https://mobiusml.github.io/hqq_blog/")

    nbits: int = Field(4, ge=2, le=8)
    group_size: int = Field(64, ge=-1, description="input features that share a scale; -1: a whole row")
    iterations: int = Field(20, ge=0, le=1000)
    lp_norm: float = Field(0.7, gt=0, le=1)
    beta: float = Field(10.0, gt=0)
    kappa: float = Field(1.01, ge=1)

    def weights_after(self, weights: str) -> str:
        return "packed"

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.methods.maths.hqq import HalfQuadratic, hqq
        from compressbench.models.parts import matrix

        choice = self.choose(handle)
        solver = HalfQuadratic(self.iterations, self.lp_norm, self.beta, self.kappa)
        for name, module in choice.modules.items():
            with naming(name):
                group_size = self.group_size or -1
                put_packed(handle, name, hqq(matrix(module), bits=self.nbits, group_size=group_size, solver=solver))
        return packed_handle(handle, choice, "hqq", self.nbits)
