"""`fp8`: float8 weights and activations on GPUs that multiply them."""

from __future__ import annotations

from typing import ClassVar

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Facts
from compressbench.methods.step import LinearStep, quantized_claim
from compressbench.models.handle import ModelHandle

_FIRST_CAPABILITY = (8, 9)


class Fp8(LinearStep):
    """W8A8 in e4m3 (Micikevicius et al. 2022): a scale per output channel, and one per token found in every call.

    Needs a GPU of compute capability 8.9 (Ada, Hopper) or later; on CPU float8 would only cost time. Inputs and outputs
    of a module have to be multiples of 16.
    """

    facts: ClassVar[Facts] = Facts(devices=frozenset({"cuda"}), paper="arXiv:2209.05433")

    def weights_after(self, weights: str) -> str:
        return "packed"

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.models.fp8_linear import Fp8Linear, misfit, quantize_rows
        from compressbench.models.parts import bias_of, fitting, matrix, replace_module

        _require_float8(handle.device)
        choice = fitting(self.choose(handle), misfit)
        for name, module in choice.modules.items():
            replace_module(handle.model, name, Fp8Linear(*quantize_rows(matrix(module)), bias_of(module)))
        claim = quantized_claim("fp8", choice, 8, kernels=("_scaled_mm",))
        return handle.with_model(handle.model, weights="packed", claim=claim, num_modules=len(choice.modules))


def _require_float8(device: str) -> None:
    import torch

    if not device.startswith("cuda"):
        raise UnsupportedError("'fp8' needs cuda", got=device, do="Run it on such a machine.")
    capability = torch.cuda.get_device_capability(device)
    if capability < _FIRST_CAPABILITY:
        raise UnsupportedError(
            "the GPU has no float8 arithmetic",
            got=f"compute capability {capability[0]}.{capability[1]}",
            do="'fp8' needs 8.9 (Ada, Hopper) or later.",
        )
