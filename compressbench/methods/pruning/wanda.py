"""`wanda`: the weights go that are smallest once multiplied by the norm of their inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from compressbench.core.protocols import Facts
from compressbench.methods.calibrated_step import CalibratedStep, blocks
from compressbench.methods.pruning.sparse_step import SparseStep
from compressbench.methods.quantization.packed_step import naming
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch


class Wanda(SparseStep, CalibratedStep):
    """Wanda (Sun et al. 2023): |w| · ‖X_j‖₂ within every output row, unstructured or n:m; no weight is updated.

    Zeros are stored like any other value: a dense file does not shrink and a dense kernel does not speed up.
    """

    facts: ClassVar[Facts] = Facts(needs_calibration=True, paper="arXiv:2306.11695")

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.methods.maths.wanda import ColumnNorms, wanda_scores
        from compressbench.models.parts import matrix

        choice, samples = self.choose(handle), self.draw(handle)
        self.check_columns(matrix(module) for module in choice.modules.values())
        for block in blocks(handle, samples, list(choice.modules)):
            weights = {name: matrix(choice.modules[name]) for name in block.names}
            groups = block.groups()
            norms = {
                group[0]: ColumnNorms(weights[group[0]].shape[1], str(weights[group[0]].device)) for group in groups
            }
            block.observe({name: each.add for name, each in norms.items()})
            for group in groups:
                for name in group:
                    with naming(name):
                        weights[name].mul_(self._mask(wanda_scores(weights[name], norms[group[0]].norms())))
        return self.finish(handle, choice, "wanda", calibration=samples.describe())

    def _mask(self, scores: torch.Tensor) -> torch.Tensor:
        from compressbench.methods.maths import masks

        if self.n_of_m is not None:
            kept, group = self.n_of_m
            return masks.keep_n_of_m(scores, group - kept, group)
        return masks.keep_largest_per_row(scores, self.fraction_of_zeros)
