"""What all methods share that leave packed low-bit weights: the grid's options, and how a layer is put in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import Field

from compressbench.core.deploying import Note
from compressbench.core.errors import CellError
from compressbench.core.spec import Spec
from compressbench.methods.step import quantized_claim
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch

    from compressbench.methods.maths.uniform import Grid
    from compressbench.models.parts import Choice
    from compressbench.models.quantized_weight import QuantizedWeight


class GridOptions(Spec):
    """A uniform integer grid per group of input features; scales in float16, integer zero points in `bits` bits."""

    bits: int = Field(4, ge=2, le=8)
    group_size: int = Field(128, ge=-1, description="input features that share a scale; -1: a whole row (per channel)")
    sym: bool = Field(False, description="symmetric around zero, and no zero points stored")
    mse: bool = Field(
        False, description="search the range of each group for the least error instead of taking it whole"
    )

    def grid(self) -> Grid:
        from compressbench.methods.maths.uniform import Grid

        return Grid(self.bits, self.group_size or -1, self.sym, self.mse)

    def weights_after(self, weights: str) -> str:
        return "packed"


def put_packed(
    handle: ModelHandle, name: str, quantized: QuantizedWeight, input_scale: torch.Tensor | None = None
) -> None:
    """A packed layer in the place of the linear module `name`, with that one's bias."""
    from compressbench.models.packed_linear import PackedLinear
    from compressbench.models.parts import bias_of, replace_module

    bias = bias_of(handle.model.get_submodule(name))
    replace_module(handle.model, name, PackedLinear(quantized, bias, input_scale))


def packed_handle(handle: ModelHandle, choice: Choice, step: str, bits: int, **notes: Note) -> ModelHandle:
    """The handle after all chosen modules were packed, with the step's claim."""
    claim = quantized_claim(step, choice, bits)
    return handle.with_model(handle.model, weights="packed", claim=claim, num_modules=len(choice.modules), **notes)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """What the maths refuse becomes an error that names the module."""
    try:
        yield
    except ValueError as error:
        raise CellError(f"the module can't be compressed: {error}", where=name) from error
