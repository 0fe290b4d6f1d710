"""`auto-round`: rounding learned by signed gradient descent, as the auto-round package does it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from compressbench.core.protocols import Facts
from compressbench.methods.foreign.process import Tool
from compressbench.methods.foreign.step import ForeignStep
from compressbench.models.handle import ModelHandle


class AutoRound(ForeignStep):
    """AutoRound (Cheng et al. 2023): SignSGD over `iters` steps decides per weight whether to round up or down, and how
    far the ranges shrink, block by block. `iters: 0` is the tool's plain rounding to nearest.

    The tool takes samples of one length: longer ones are cut and shorter ones left out, so that most tokens stay; the
    notes say how many. It writes the first GPTQ layout, which can't hold a zero point of 0: with `sym: false` it stores 1
    in its place.
    """

    facts: ClassVar[Facts] = Facts(needs_calibration=True, runs_elsewhere=("auto-round",), paper="arXiv:2309.05516")
    tool: ClassVar[Tool] = Tool(
        name="auto-round",
        distribution="auto-round",
        module="auto_round",
        version="0.16.1",
        worker="worker_auto_round.py",
    )

    bits: Literal[2, 3, 4, 8] = 4
    group_size: Literal[-1, 16, 32, 64, 128, 256, 512, 1024] = Field(128, description="-1: one scale per row")
    sym: bool = True
    iters: int = Field(200, ge=0, le=100_000, description="steps per block; 0 rounds to nearest")
    lr: float | None = Field(None, gt=0, description="default: the tool's, 1 / iters")

    def weights_after(self, weights: str) -> str:
        return "packed"

    def tool_options(self) -> dict[str, Any]:
        return self.model_dump(include={"bits", "group_size", "sym", "iters", "lr"})

    def apply(self, handle: ModelHandle) -> ModelHandle:
        return self.packed(handle, self.bits)
