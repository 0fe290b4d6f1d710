"""What most methods share. A method need not inherit from here; it saves the lines that would be the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from compressbench.core.protocols import Claim
from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from torch import nn

    from compressbench.models.parts import Choice
    from compressbench.models.stored_embedding import Tables


class Step(Spec):
    """A step that takes any model and leaves the weight format as it is, unless it says otherwise."""

    def weights_after(self, weights: str) -> str:
        return weights

    def check_model(self, config: Mapping[str, Any]) -> None:
        pass


class LinearStep(Step):
    """A step on linear modules. Output heads and tied weights are left alone unless a target names them."""

    targets: tuple[str, ...] = Field((), description="module names, parts of them, or re: patterns; default: all")
    ignore: tuple[str, ...] = Field((), description="the same for modules to leave out; output heads always are")

    def choose(self, handle: ModelHandle) -> Choice:
        """The linear modules to work on and the reasons for leaving others. Raises UnsupportedError if there is none."""
        from compressbench.models.parts import choose_linears

        return choose_linears(handle.model, self.targets, self.ignore)


class TableStep(Step):
    """A step on tables of vectors (embeddings). Tied ones are left alone, and those of which `misfit` says why."""

    targets: tuple[str, ...] = Field(
        (), description="module names, parts of them, or re: patterns; default: all tables"
    )
    ignore: tuple[str, ...] = Field((), description="the same for tables to leave out")

    def choose(self, handle: ModelHandle) -> Tables:
        """The tables to work on and the reasons for leaving others. Raises UnsupportedError if there is none."""
        from compressbench.models.stored_embedding import choose_tables

        return choose_tables(handle.model, self.targets, self.ignore, self.misfit)

    def misfit(self, table: nn.Embedding) -> str:
        """Why the step can't work on this table, or ""."""
        raise NotImplementedError


def quantized_claim(step: str, choice: Choice, bits: float, *, kernels: tuple[str, ...] = ()) -> Claim:
    """The claim of a step that stores the chosen modules' weights in `bits`, and so makes the files smaller."""
    return Claim(
        step=step, modules=tuple(choice.modules), left_out=choice.left_out, bits=bits, kernels=kernels, is_smaller=True
    )
