"""`gptq`: rounding column by column, where later weights make up for the error of earlier ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressbench.core.protocols import Facts
from compressbench.methods.calibrated_step import CalibratedStep, blocks
from compressbench.methods.quantization.packed_step import GridOptions, naming, packed_handle, put_packed
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch

    from compressbench.methods.maths.gptq import GptqOptions
    from compressbench.models.blocks import Block


class Gptq(GridOptions, CalibratedStep):
    """GPTQ (Frantar et al. 2022), for encoders and decoders alike, block by block through what is already quantized.

    `true_sequential` also goes through the already quantized modules within a block; otherwise a block's statistics are
    all taken before its first module changes. Weights that were pruned before stay zero.
    """

    facts: ClassVar[Facts] = Facts(needs_calibration=True, paper="arXiv:2210.17323")

    desc_act: bool = Field(False, description="columns by falling activation energy (act-order)")
    static_groups: bool = Field(False, description="all groups' scales before the first column")
    damp_percent: float = Field(0.01, gt=0, lt=1, description="of the Hessian's mean diagonal, added to it")
    damp_auto_increment: float = Field(0.0025, ge=0, lt=1, description="more of it, as often as the inverse fails")
    block_size: int = Field(128, ge=1, description="columns per lazy update; matters to speed only")
    true_sequential: bool = True

    def apply(self, handle: ModelHandle) -> ModelHandle:
        choice, samples = self.choose(handle), self.draw(handle)
        loss = 0.0
        for block in blocks(handle, samples, list(choice.modules)):
            groups = block.groups()
            steps = [[group] for group in groups] if self.true_sequential else [groups]
            loss += sum(self._quantize(handle, block, step) for step in steps)
        return packed_handle(handle, choice, "gptq", self.bits, sum_of_losses=loss, calibration=samples.describe())

    def _quantize(self, handle: ModelHandle, block: Block, groups: list[list[str]]) -> float:
        """Quantize modules of one block, those of a group with the same Hessian; the sum of their losses."""
        from compressbench.methods.maths.gptq import gptq
        from compressbench.models.parts import matrix

        loss = 0.0
        for group, hessian in zip(groups, hessians(block, [group[0] for group in groups]), strict=True):
            for name in group:
                weight = matrix(handle.model.get_submodule(name))
                has_zeros = int((weight == 0).sum()) > _PRUNED * weight.numel()
                with naming(name):
                    own = hessian if name == group[-1] else hessian.clone()  # it is consumed
                    result = gptq(weight, own, self.grid(), self._options(), keep_zeros=has_zeros)
                put_packed(handle, name, result.quantized)
                loss += result.loss
                del weight, result  # or both live on while the next module is quantized
        return loss

    def _options(self) -> GptqOptions:
        from compressbench.methods.maths.gptq import GptqOptions

        return GptqOptions(
            self.damp_percent, self.damp_auto_increment, self.desc_act, self.static_groups, self.block_size
        )


_PRUNED = 0.01
"""A matrix with a larger fraction of zeros was pruned, and its zeros are kept."""


def hessians(block: Block, names: list[str], *, is_exact: bool = False) -> list[torch.Tensor]:
    """2/n XᵀX of the inputs of each of the modules, in one pass over the calibration samples.

    In float32, or in float64 if it has to be exact: rounded sums of dependent features are no longer positive definite.
    """
    import torch

    from compressbench.methods.maths.inverse_hessian import Hessian
    from compressbench.models.parts import matrix

    weights = [matrix(block.model.get_submodule(name)) for name in names]
    dtype = torch.float64 if is_exact else torch.float32
    sums = [Hessian(weight.shape[1], dtype, str(weight.device)) for weight in weights]
    block.observe({name: each.add for name, each in zip(names, sums, strict=True)})
    found = []
    for name, each in zip(names, sums, strict=True):
        with naming(name):
            found.append(each.take())
    return found
