"""`sparsegpt`: pruning column by column, where the weights that stay make up for those that go."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressbench.core.protocols import Facts
from compressbench.methods.calibrated_step import CalibratedStep, blocks
from compressbench.methods.pruning.sparse_step import SparseStep
from compressbench.methods.quantization.gptq import hessians
from compressbench.methods.quantization.packed_step import naming
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from torch import nn


class SparseGpt(SparseStep, CalibratedStep):
    """SparseGPT (Frantar & Alistarh 2023), unstructured or n:m, for encoders and decoders alike.

    Zeros are stored like any other value: a dense file does not shrink and a dense kernel does not speed up.
    """

    facts: ClassVar[Facts] = Facts(needs_calibration=True, paper="arXiv:2301.00774")

    damp_percent: float = Field(0.01, gt=0, lt=1, description="of the Hessian's mean diagonal, added to it")
    damp_auto_increment: float = Field(0.0025, ge=0, lt=1, description="more of it, as often as the inverse fails")
    block_size: int = Field(128, ge=1, description="columns among which an unstructured mask is chosen")

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.methods.maths.sparsegpt import SparseGptOptions, sparsegpt
        from compressbench.models.parts import matrix

        choice, samples = self.choose(handle), self.draw(handle)
        self.check_columns(matrix(module) for module in choice.modules.values())
        kept, size = self.n_of_m or (0, 0)
        options = SparseGptOptions(
            None if self.n_of_m else self.fraction_of_zeros,
            num_zeros=size - kept,
            group=size,
            block_size=self.block_size,
            damp_percent=self.damp_percent,
            damp_auto_increment=self.damp_auto_increment,
        )
        for block in blocks(handle, samples, list(choice.modules)):
            for group in block.groups():
                for name in group:
                    _store(choice.modules[name], by_column=True)  # before there is a Hessian: no copy beside it later
                (hessian,) = hessians(block, [group[0]])
                for name in group:
                    with naming(name):
                        own = hessian if name == group[-1] else hessian.clone()  # it is consumed
                        sparsegpt(matrix(choice.modules[name]), own, options, in_place=True)
                del hessian, own
                for name in group:
                    _store(choice.modules[name], by_column=False)
        return self.finish(handle, choice, "sparsegpt", calibration=samples.describe())


def _store(module: nn.Linear, *, by_column: bool) -> None:
    """The same weight in the other order of memory: column by column for the sweep, row by row for the kernels."""
    weight = module.weight.data
    module.weight.data = weight.t().contiguous().t() if by_column else weight.contiguous()
