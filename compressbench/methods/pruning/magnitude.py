"""`magnitude`: the smallest weights become zero."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Facts
from compressbench.methods.step import LinearStep
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


class Magnitude(LinearStep):
    """Unstructured or n:m pruning by |w| (Han et al. 2015), of linear modules only, embeddings and heads left alone.

    `group` says among which weights the smallest are chosen: the whole model (`global`), each matrix (`layer`) or each
    output channel (`row`); published numbers differ a lot between them. `mask_structure: "2:4"` zeroes two of every
    four neighbours and takes no sparsity of its own. Zeros are stored like any other value: a dense file does not
    shrink and a dense kernel does not speed up.
    """

    facts: ClassVar[Facts] = Facts(paper="arXiv:1506.02626")

    sparsity: float | None = Field(None, gt=0, lt=1, description="fraction of zeros in the pruned modules")
    group: Literal["global", "layer", "row"] = Field("layer", description="among which weights the smallest are chosen")
    mask_structure: Annotated[str, StringConstraints(pattern=r"^(unstructured|[0-9]+:[0-9]+)$")] = "unstructured"

    @model_validator(mode="after")
    def _has_one_amount(self) -> Magnitude:
        pattern = self.n_of_m
        if pattern is None and self.sparsity is None:
            raise ValueError('give sparsity, or mask_structure such as "2:4"')
        if pattern is None:
            return self
        if "group" in self.model_fields_set:
            raise ValueError(
                f'mask_structure "{self.mask_structure}" chooses among its own neighbours; leave group out'
            )
        kept, group = pattern
        if not 0 < kept < group:
            raise ValueError(f'mask_structure "{self.mask_structure}" must keep between 1 and {group - 1} of {group}')
        if self.sparsity is not None and abs(self.sparsity - (1 - kept / group)) > 1e-9:
            raise ValueError(
                f'mask_structure "{self.mask_structure}" has sparsity {1 - kept / group:g}; leave sparsity out'
            )
        return self

    @property
    def n_of_m(self) -> tuple[int, int] | None:
        """(n, m) of an n:m mask: n of every m neighbours stay."""
        found = re.fullmatch(r"(\d+):(\d+)", self.mask_structure)
        return (int(found[1]), int(found[2])) if found else None

    def apply(self, handle: ModelHandle) -> ModelHandle:
        import torch

        chosen = self.chosen(handle)
        weights = [module.weight for module in chosen.values()]
        with torch.no_grad():
            for weight, mask in zip(weights, self._masks([weight.abs() for weight in weights]), strict=True):
                weight.mul_(mask)
        total = sum(weight.numel() for weight in weights)
        zeros = total - sum(int(torch.count_nonzero(weight)) for weight in weights)
        return handle.with_model(handle.model, num_modules=len(chosen), realised_sparsity=zeros / total)

    def _masks(self, scores: list[torch.Tensor]) -> list[torch.Tensor]:
        from compressbench.methods.maths import masks

        if self.n_of_m is not None:
            kept, group = self.n_of_m
            _require_multiple(scores, group)
            return [masks.keep_n_of_m(score, group - kept, group) for score in scores]
        assert self.sparsity is not None  # noqa: S101 -- the validator saw to it
        if self.group == "global":
            return masks.keep_largest_overall(scores, self.sparsity)
        per_matrix: Callable[[torch.Tensor, float], torch.Tensor] = (
            masks.keep_largest_per_row if self.group == "row" else masks.keep_largest
        )
        return [per_matrix(score, self.sparsity) for score in scores]


def _require_multiple(scores: list[torch.Tensor], group: int) -> None:
    odd = next((score.shape[1] for score in scores if score.shape[1] % group), None)
    if odd is not None:
        raise UnsupportedError(
            f"a linear module has {odd} inputs, which is no multiple of {group}",
            do="Leave that module out with ignore, or choose another mask_structure.",
        )
