"""`semi-structured`: the zeros of 2:4-pruned matrices are no longer stored, and no longer multiplied where a GPU can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Claim, Facts
from compressbench.methods.step import LinearStep
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from compressbench.models.parts import Choice
    from compressbench.models.semi_structured_linear import SemiStructuredLinear

_KERNELS = ("_cslt_sparse_mm", "_sparse_semi_structured")  # operators of cuSPARSELt and of CUTLASS


class SemiStructured(LinearStep):
    """What is left of 2:4 matrices as sparse tensor cores want it (Mishra et al. 2021): two values of four, and where.

    Comes after `magnitude`, `wanda` or `sparsegpt` with mask_structure "2:4" and changes no number: b/2 + 1 bits per
    weight of b bits, 9 for bfloat16. On CUDA (8.0 and later) the products of 16-bit matrices are sparse ones. On CPU, in
    float32, and for matrices that are no multiple of 32 x 64 they stay dense, the zeros put back in every call: that
    saves memory, not time.
    """

    facts: ClassVar[Facts] = Facts(paper="arXiv:2104.08378")

    def weights_after(self, weights: str) -> str:
        return "packed"

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.models.parts import bias_of, matrix, replace_module
        from compressbench.models.semi_structured_linear import SemiStructuredLinear, misfit, without_zeros

        choice = self.choose(handle)
        for name, module in choice.modules.items():
            _require_2_of_4(name, misfit(matrix(module)))
        layers: dict[str, SemiStructuredLinear] = {}
        for name, module in choice.modules.items():
            layers[name] = SemiStructuredLinear(without_zeros(matrix(module)), bias_of(module))
            replace_module(handle.model, name, layers[name])
        for claim in _claims(choice, layers):
            handle = handle.with_model(handle.model, claim=claim)
        notes: dict[str, Any] = {
            "num_modules": len(layers),
            "num_sparse_products": sum(layer.kernel == "sparse" for layer in layers.values()),
        }
        reasons = {layer.why_dense() for layer in layers.values()} - {""}
        if reasons:
            notes["why_dense"] = "; ".join(sorted(reasons))
        return handle.with_model(handle.model, weights="packed", **notes)


def _require_2_of_4(name: str, reason: str) -> None:
    if reason:
        raise UnsupportedError(
            f"the matrix isn't 2:4: {reason}",
            where=name,
            do='Put a pruning step with mask_structure: "2:4" before this one, or leave the module out with ignore.',
        )


def _claims(choice: Choice, layers: Mapping[str, SemiStructuredLinear]) -> list[Claim]:
    """One for the modules whose products are sparse and one for the others, where there are such."""
    sparse = {name: layer for name, layer in layers.items() if layer.kernel == "sparse"}
    dense = {name: layer for name, layer in layers.items() if name not in sparse}
    if not sparse or not dense:
        return [_claim("semi-structured", layers, choice.left_out, _KERNELS if sparse else ())]
    return [
        _claim("semi-structured", sparse, choice.left_out, _KERNELS),
        _claim("semi-structured (dense products)", dense, {}, ()),
    ]


def _claim(
    step: str, layers: Mapping[str, SemiStructuredLinear], left_out: Mapping[str, str], kernels: tuple[str, ...]
) -> Claim:
    widest = max(layer.weight().values.element_size() for layer in layers.values())
    return Claim(
        step=step,
        modules=tuple(layers),
        left_out=left_out,
        bits=8 * widest / 2 + 1,
        sparsity=0.5,
        mask_structure="2:4",
        kernels=kernels,
        is_smaller=True,
    )
