"""What all methods that put zeros into matrices share: how many, in which pattern, and what they claim afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Claim
from compressbench.methods.step import LinearStep
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch

    from compressbench.models.parts import Choice


class SparseStep(LinearStep):
    """`mask_structure: "2:4"` keeps two of every four neighbours along the input features, and takes no sparsity of its
    own. Zeros are stored like any other value: a dense file does not shrink and a dense kernel does not speed up.
    """

    sparsity: float | None = Field(None, gt=0, lt=1, description="fraction of zeros in the pruned modules")
    mask_structure: Annotated[str, StringConstraints(pattern=r"^(unstructured|[0-9]+:[0-9]+)$")] = "unstructured"

    @model_validator(mode="after")
    def _has_one_amount(self) -> SparseStep:
        pattern = self.n_of_m
        if pattern is None:
            if self.sparsity is None:
                raise ValueError('give sparsity, or mask_structure such as "2:4"')
            return self
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

    @property
    def fraction_of_zeros(self) -> float:
        """What is asked for, whichever way it was given."""
        if self.n_of_m is not None:
            kept, group = self.n_of_m
            return 1 - kept / group
        assert self.sparsity is not None  # noqa: S101 -- the validator saw to it
        return self.sparsity

    def check_columns(self, weights: Iterable[torch.Tensor]) -> None:
        """Raise UnsupportedError if a matrix (out x in) can't be cut into the groups of the mask."""
        group = 1 if self.n_of_m is None else self.n_of_m[1]
        odd = next((weight.shape[1] for weight in weights if weight.shape[1] % group), None)
        if odd is not None:
            raise UnsupportedError(
                f"a linear module has {odd} inputs, which is no multiple of {group}",
                do="Leave that module out with ignore, or choose another mask_structure.",
            )

    def finish(self, handle: ModelHandle, choice: Choice, step: str, calibration: str = "") -> ModelHandle:
        """The handle with the claim of `step` on the chosen modules, the zeros that are really there, and what was looked
        at.
        """
        import torch

        from compressbench.models.parts import matrix

        weights = [matrix(module) for module in choice.modules.values()]
        total = sum(weight.numel() for weight in weights)
        zeros = total - sum(int(torch.count_nonzero(weight)) for weight in weights)
        claim = Claim(
            step=step,
            modules=tuple(choice.modules),
            left_out=choice.left_out,
            sparsity=self.fraction_of_zeros,
            mask_structure=self.mask_structure if self.n_of_m else None,
        )
        notes: dict[str, Any] = {"num_modules": len(weights), "realised_sparsity": zeros / total}
        if calibration:
            notes["calibration"] = calibration
        return handle.with_model(handle.model, claim=claim, **notes)
