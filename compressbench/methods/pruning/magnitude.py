"""`magnitude`: the smallest weights become zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from compressbench.core.protocols import Facts
from compressbench.methods.pruning.sparse_step import SparseStep
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


class Magnitude(SparseStep):
    """Unstructured or n:m pruning by |w| (Han et al. 2015), of linear modules only, embeddings and heads left alone.

    `group` says among which weights the smallest are chosen: the whole model (`global`), each matrix (`layer`) or each
    output channel (`row`); published numbers differ a lot between them. `mask_structure: "2:4"` zeroes two of every
    four neighbours and takes no sparsity of its own. Zeros are stored like any other value: a dense file does not
    shrink and a dense kernel does not speed up.
    """

    facts: ClassVar[Facts] = Facts(paper="arXiv:1506.02626")

    group: Literal["global", "layer", "row"] = Field("layer", description="among which weights the smallest are chosen")

    @model_validator(mode="after")
    def _has_one_group(self) -> Magnitude:
        if self.n_of_m is not None and "group" in self.model_fields_set:
            raise ValueError(
                f'mask_structure "{self.mask_structure}" chooses among its own neighbours; leave group out'
            )
        return self

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.models.parts import matrix

        choice = self.choose(handle)
        weights = [matrix(module) for module in choice.modules.values()]
        self.check_columns(weights)
        for weight, mask in zip(weights, self._masks([weight.abs() for weight in weights]), strict=True):
            weight.mul_(mask)
        return self.finish(handle, choice, "magnitude")

    def _masks(self, scores: list[torch.Tensor]) -> list[torch.Tensor]:
        from compressbench.methods.maths import masks

        if self.n_of_m is not None:
            kept, group = self.n_of_m
            return [masks.keep_n_of_m(score, group - kept, group) for score in scores]
        if self.group == "global":
            return masks.keep_largest_overall(scores, self.fraction_of_zeros)
        per_matrix: Callable[[torch.Tensor, float], torch.Tensor] = (
            masks.keep_largest_per_row if self.group == "row" else masks.keep_largest
        )
        return [per_matrix(score, self.fraction_of_zeros) for score in scores]
