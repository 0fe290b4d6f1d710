"""`int8-dynamic`: int8 weights, activations quantized to int8 in every call."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from compressbench.core.protocols import Facts
from compressbench.methods.step import LinearStep, quantized_claim
from compressbench.models.handle import ModelHandle


class Int8Dynamic(LinearStep):
    """W8A8 without calibration: per-channel weights, activation scales found anew in every call.

    PyTorch's old default, one scale for a whole weight matrix, is measurably lossy on small encoders and isn't offered.
    `reduce_range` gives up one bit of the activations; left out, it is on just where the processor lacks VNNI and
    would overflow without it. What isn't quantized stays in the type that it had.
    """

    facts: ClassVar[Facts] = Facts(paper="arXiv:1712.05877")

    reduce_range: bool | None = Field(None, description="7-bit activations; default: only without VNNI")

    def weights_after(self, weights: str) -> str:
        return "int8"

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.methods.maths.integers import per_channel_symmetric
        from compressbench.models.int8_linear import Int8DynamicLinear
        from compressbench.models.parts import bias_of, matrix, replace_module

        engine, reduce_range, kernel = int8_settings(handle.device, self.reduce_range)
        choice = self.choose(handle)
        for name, module in choice.modules.items():
            codes, scale = per_channel_symmetric(matrix(module))
            layer = Int8DynamicLinear(codes, scale, bias_of(module), engine=engine, reduce_range=reduce_range)
            replace_module(handle.model, name, layer)
        return handle.with_model(
            handle.model,
            weights="int8",
            claim=quantized_claim("int8-dynamic", choice, 8, kernels=(kernel,)),
            num_modules=len(choice.modules),
            engine=engine,
            reduce_range=reduce_range,
        )


def int8_settings(device: str, reduce_range: bool | None) -> tuple[str, bool, str]:
    """Engine, whether activations lose a bit, and the kernel that has to run, on `device`."""
    from compressbench.models.int8_linear import best_engine

    reduce_range = not _has_vnni() if reduce_range is None else reduce_range
    if device.startswith("cuda"):
        return "cuda", reduce_range, "_int_mm"
    return best_engine(), reduce_range, "linear_dynamic"


def _has_vnni() -> bool:
    import torch

    return bool(torch.cpu._is_vnni_supported() or (torch.cpu._is_avx512_supported() and _lists_vnni()))


def _lists_vnni() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as lines:
            return any("vnni" in line for line in lines if line.startswith("flags"))
    except OSError:
        return False
