"""What all methods share that look at calibration samples, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from compressbench.core.calibration import Calibration, CalibrationSet
from compressbench.core.errors import UnsupportedError
from compressbench.methods.step import LinearStep
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from compressbench.models.blocks import Block


class CalibratedStep(LinearStep):
    """Statistics of a block's inputs are taken after the blocks before it were compressed; padding never enters them."""

    calibration: Calibration = Field(Calibration(), description="which samples are looked at, and how many")

    def draw(self, handle: ModelHandle) -> CalibrationSet:
        """The calibration samples. Raises UnsupportedError if the handle was given no source of them."""
        if handle.supplies.calibration is None:
            raise UnsupportedError("the method needs calibration samples, and was given none")
        return handle.supplies.calibration(self.calibration)


def blocks(handle: ModelHandle, samples: CalibrationSet, names: Sequence[str]) -> Iterator[Block]:
    """The blocks of the model that hold the modules `names`, one after the other, with a progress bar."""
    from compressbench.models.blocks import walk

    done = 0
    with handle.supplies.progress.bar("modules", len(names)) as bar:
        for block in walk(handle.model, samples.batches, names):
            yield block
            bar.advance(len(block.names))
            done += len(block.names)
    if done != len(names):
        raise UnsupportedError(f"only {done} of the {len(names)} chosen modules could be reached block by block")
