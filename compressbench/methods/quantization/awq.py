"""`awq`: before rounding, weights are scaled up where activations are large."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressbench.core.protocols import Facts
from compressbench.methods.calibrated_step import CalibratedStep, blocks
from compressbench.methods.quantization.packed_step import GridOptions, naming, packed_handle, put_packed
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from compressbench.methods.maths.scaling import AwqScales
    from compressbench.models.blocks import Block


class Awq(GridOptions, CalibratedStep):
    """AWQ (Lin et al. 2023), for encoders and decoders alike: a grid search of scales mean|x|^alpha per group of modules
    that read the same tensor, then of clipping ranges.

    The loss is the whole block's output error on `search_batches` calibration batches. Scales are folded into the module
    before where the block then still computes the same; else the layer divides its own input.
    """

    facts: ClassVar[Facts] = Facts(needs_calibration=True, paper="arXiv:2306.00978")

    n_grid: int = Field(20, ge=1, le=1000)
    duo_scaling: bool = Field(False, description="divide by the weights' own size, as AutoAWQ does")
    clip: bool = Field(True, description="search clipping ranges after the scales")
    search_batches: int = Field(2, ge=1, description="calibration batches on which losses are computed")

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.methods.absorbing import with_absorbers

        choice, samples = self.choose(handle), self.draw(handle)
        before = after = 0.0
        absorbers: list[str] = []
        for block in blocks(handle, samples, list(choice.modules)):
            groups = block.groups()
            inputs = {group[0]: _Inputs() for group in groups}
            block.observe({name: each.add for name, each in inputs.items()})
            scales: dict[str, torch.Tensor | None] = {}
            for group in groups:
                with naming(group[0]):
                    found = self._search(block, group, inputs[group[0]])
                before, after = before + found.loss_at_ones, after + found.loss
                scales |= dict.fromkeys(group, _apply_scales(block, group, found.scales, absorbers))
                inputs[group[0]].scale = found.scales
            for group in groups:
                self._pack(handle, group, inputs[group[0]], scales)
        return packed_handle(
            with_absorbers(handle, "awq", absorbers),
            choice,
            "awq",
            self.bits,
            num_absorbers=len(absorbers),
            relative_loss=after / before if before else 1.0,
            calibration=samples.describe(),
        )

    def _search(self, block: Block, group: Sequence[str], inputs: _Inputs) -> AwqScales:
        from compressbench.methods.maths.scaling import awq_scales, column_means
        from compressbench.methods.maths.uniform import rtn
        from compressbench.models.parts import matrix

        weights = [matrix(block.model.get_submodule(name)) for name in group]
        originals = [weight.clone() for weight in weights]
        goal = self._outputs(block)

        def loss(scales: torch.Tensor) -> float:
            for weight, original in zip(weights, originals, strict=True):
                weight.copy_(rtn(original * scales, self.grid()).dequantize() / scales)
            found = self._outputs(block)
            return float(sum((ours - theirs).square().sum() for ours, theirs in zip(found, goal, strict=True)))

        weight_mean = column_means(weights, self.group_size or -1) if self.duo_scaling else None
        try:
            return awq_scales(inputs.mean_abs(), loss, self.n_grid, weight_mean)
        finally:
            for weight, original in zip(weights, originals, strict=True):
                weight.copy_(original)

    def _outputs(self, block: Block) -> list[torch.Tensor]:
        from itertools import islice

        return [output.float() for output in islice(block.outputs(), self.search_batches)]

    def _pack(
        self, handle: ModelHandle, group: Sequence[str], inputs: _Inputs, scales: dict[str, torch.Tensor | None]
    ) -> None:
        from compressbench.methods.maths.scaling import awq_clip, clip_groups
        from compressbench.methods.maths.uniform import rtn
        from compressbench.models.parts import matrix

        for name in group:
            weight = matrix(handle.model.get_submodule(name))
            with naming(name):
                if self.clip:
                    size = self.group_size or -1
                    limits = awq_clip(weight, inputs.sample(), lambda rows: rtn(rows, self.grid()).dequantize(), size)
                    weight = clip_groups(weight, limits, size)
                put_packed(handle, name, rtn(weight, self.grid()), scales[name])


def _apply_scales(
    block: Block, group: Sequence[str], scales: torch.Tensor, absorbers: list[str]
) -> torch.Tensor | None:
    """Scale the modules' columns; what they still have to divide their inputs by, or None if an absorber does it."""
    from compressbench.methods.absorbing import absorb

    if bool((scales == 1).all()):
        return None
    absorber = absorb(block, group, scales)
    if absorber is not None:
        absorbers.append(absorber)
    return scales if absorber is None else None


class _Inputs:
    """mean|X_j| of a module's inputs and a sample of them, divided by `scale` once that is known."""

    _ROWS = 256  # all samples of a block are held together: more would need more than two blocks of memory

    def __init__(self) -> None:
        self._sum: torch.Tensor | None = None
        self._num_rows = 0
        self._sample: list[torch.Tensor] = []
        self.scale: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        total = rows.abs().float().sum(dim=0)
        self._sum = total if self._sum is None else self._sum + total
        missing = self._ROWS - sum(len(part) for part in self._sample)
        if missing > 0:
            self._sample.append(rows[:missing].float().clone())
        self._num_rows += len(rows)

    def mean_abs(self) -> torch.Tensor:
        if self._sum is None:
            raise ValueError("no calibration input reached this layer")
        return self._sum / self._num_rows

    def sample(self) -> torch.Tensor:
        import torch

        rows = torch.cat(self._sample)
        return rows if self.scale is None else rows / self.scale
