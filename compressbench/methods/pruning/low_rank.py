"""`low-rank`: each matrix becomes the product of two thinner ones, chosen for the inputs that it sees."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Claim, Facts
from compressbench.methods.calibrated_step import CalibratedStep, blocks
from compressbench.methods.quantization.gptq import hessians
from compressbench.methods.quantization.packed_step import naming
from compressbench.models.handle import ModelHandle


class LowRank(CalibratedStep):
    """Activation-aware SVD (SVD-LLM, Wang et al. 2024): the truncation that loses least on the calibration inputs.

    Give `ratio`, the fraction of the modules' weights that goes, or `rank`. Both factors stay plain linear modules, so
    that training and quantization can follow. The model is saved by compressbench; transformers alone can't load it.
    """

    facts: ClassVar[Facts] = Facts(needs_calibration=True, paper="arXiv:2403.07378")

    ratio: float | None = Field(None, gt=0, lt=1, description="fraction of the weights that goes")
    rank: int | None = Field(None, ge=1, description="of every chosen matrix")

    @model_validator(mode="after")
    def _has_one_amount(self) -> LowRank:
        if (self.ratio is None) == (self.rank is None):
            raise ValueError("give either ratio or rank")
        return self

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.methods.maths.low_rank import low_rank
        from compressbench.models.low_rank_linear import LowRankLinear
        from compressbench.models.parts import bias_of, matrix, replace_module

        choice, samples = self.choose(handle), self.draw(handle)
        ranks = {name: self._rank(name, tuple(matrix(module).shape)) for name, module in choice.modules.items()}
        discarded = 0.0
        for block in blocks(handle, samples, list(choice.modules)):
            for group in block.groups():
                (gram,) = hessians(block, [group[0]], is_exact=True)
                for name in group:
                    module = choice.modules[name]
                    with naming(name):
                        factors = low_rank(matrix(module), gram, ranks[name])
                    discarded += factors.discarded_energy / 2  # of 2/n XᵀX: the mean squared error of a row
                    replace_module(handle.model, name, LowRankLinear(factors.left, factors.right, bias_of(module)))
        modules = tuple(f"{name}.{part}" for name in choice.modules for part in ("left", "right"))
        claim = Claim(step="low-rank", modules=modules, left_out=choice.left_out, is_smaller=True)
        return handle.with_model(
            handle.model,
            claim=claim,
            num_modules=len(choice.modules),
            ranks=f"{min(ranks.values())} to {max(ranks.values())}",
            mean_squared_output_error=discarded,
            calibration=samples.describe(),
        )

    def _rank(self, name: str, shape: tuple[int, ...]) -> int:
        from compressbench.methods.maths.low_rank import rank_for

        rows, columns = shape
        with naming(name):
            rank = self.rank or rank_for(self.ratio or 0.0, rows, columns)
        if rank * (rows + columns) >= rows * columns:
            raise UnsupportedError(
                f"two factors of rank {rank} are no smaller than a matrix of {rows} x {columns}",
                where=name,
                do="Lower rank, or leave the module out with ignore.",
            )
        return rank
