"""`smoothquant`: int8 weights and activations, outliers moved from the activations into the weights first."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressbench.core.protocols import Facts
from compressbench.methods.calibrated_step import CalibratedStep, blocks
from compressbench.methods.quantization.int8_dynamic import int8_settings
from compressbench.methods.quantization.packed_step import naming
from compressbench.methods.step import quantized_claim
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch

    from compressbench.models.blocks import Block


class SmoothQuant(CalibratedStep):
    """SmoothQuant (Xiao et al. 2022), W8A8: per-channel weights, activations quantized anew in every call.

    Scales max|X_j|^alpha / max|W_j|^(1 - alpha) are shared by modules that read the same tensor, and folded into the norm
    or linear module before them if the block then still computes the same; else the layer divides its own input.
    """

    facts: ClassVar[Facts] = Facts(accepts=frozenset({"float32"}), needs_calibration=True, paper="arXiv:2211.10438")

    alpha: float = Field(0.5, ge=0, le=1, description="how much moves to the weights; 0.8 to 0.9 for Llama")
    reduce_range: bool | None = Field(None, description="7-bit activations; default: only without VNNI")

    def weights_after(self, weights: str) -> str:
        return "int8"

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.methods.absorbing import with_absorbers

        choice, samples = self.choose(handle), self.draw(handle)
        engine, reduce_range, kernel = int8_settings(handle.device, self.reduce_range)
        absorbers: list[str] = []
        for block in blocks(handle, samples, list(choice.modules)):
            scales = self._smooth(block, absorbers)
            for name, scale in scales.items():
                _put_int8(handle, name, scale, engine=engine, reduce_range=reduce_range)
        return with_absorbers(handle, "smoothquant", absorbers).with_model(
            handle.model,
            weights="int8",
            claim=quantized_claim("smoothquant", choice, 8, kernels=(kernel,)),
            num_modules=len(choice.modules),
            num_absorbers=len(absorbers),
            engine=engine,
            reduce_range=reduce_range,
            calibration=samples.describe(),
        )

    def _smooth(self, block: Block, absorbers: list[str]) -> dict[str, torch.Tensor | None]:
        """Smooth all modules of a block; the scale that a module still has to divide its input by, or None. Those that
        took a scale are added to `absorbers`.
        """
        import torch

        from compressbench.methods.absorbing import absorb
        from compressbench.methods.maths.scaling import smooth_scales
        from compressbench.models.parts import matrix

        groups = block.groups()
        largest: dict[str, torch.Tensor] = {}
        block.observe({group[0]: _Largest(largest, group[0]).add for group in groups})
        left: dict[str, torch.Tensor | None] = {}
        for group in groups:
            weights = [matrix(block.model.get_submodule(name)) for name in group]
            with naming(group[0]):
                if group[0] not in largest:
                    raise ValueError("no calibration input reached this layer")
            weight_max = torch.stack([weight.abs().amax(dim=0) for weight in weights]).amax(dim=0)
            scales = smooth_scales(largest[group[0]], weight_max, self.alpha)
            absorber = absorb(block, group, scales)
            if absorber is not None:
                absorbers.append(absorber)
            left |= dict.fromkeys(group, scales if absorber is None else None)
        return left


class _Largest:
    """max|X_j| over all rows, put into `found` under `name`."""

    def __init__(self, found: dict[str, torch.Tensor], name: str) -> None:
        self._found, self._name = found, name

    def add(self, rows: torch.Tensor) -> None:
        largest = rows.abs().amax(dim=0)
        before = self._found.get(self._name)
        self._found[self._name] = largest if before is None else largest.maximum(before)


def _put_int8(
    handle: ModelHandle, name: str, input_scale: torch.Tensor | None, *, engine: str, reduce_range: bool
) -> None:
    from compressbench.methods.maths.integers import per_channel_symmetric
    from compressbench.models.int8_linear import Int8DynamicLinear
    from compressbench.models.parts import bias_of, matrix, replace_module

    module = handle.model.get_submodule(name)
    codes, scale = per_channel_symmetric(matrix(module))
    layer = Int8DynamicLinear(
        codes, scale, bias_of(module), engine=engine, reduce_range=reduce_range, input_scale=input_scale
    )
    replace_module(handle.model, name, layer)
