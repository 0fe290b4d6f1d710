"""What most methods share. A method need not inherit from here; it saves the lines that would be the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from compressbench.core.spec import Spec
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from torch import nn


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

    def chosen(self, handle: ModelHandle) -> dict[str, nn.Linear]:
        """The linear modules to work on, by name. Raises UnsupportedError if there is none."""
        from compressbench.models.parts import target_linears

        return target_linears(handle.model, self.targets, self.ignore)
