"""`gptqmodel`: GPTQ as the GPTQModel package does it."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from compressbench.core.protocols import Facts
from compressbench.methods.foreign.process import Tool
from compressbench.methods.foreign.step import ForeignStep
from compressbench.models.handle import ModelHandle


class GptqModel(ForeignStep):
    """GPTQ (Frantar et al. 2022) by GPTQModel, for comparison with `gptq` and for its own defaults.

    Its codes, float16 scales and zero points stand in packed layers afterwards. Its silent fall-back to rounding, for
    modules that few samples reach, is off: the step fails instead. `act_group_aware` orders columns by their activations
    within groups, and groups among each other, so that no index has to be stored; it is on where it can be.
    """

    facts: ClassVar[Facts] = Facts(needs_calibration=True, runs_elsewhere=("gptqmodel",), paper="arXiv:2210.17323")
    tool: ClassVar[Tool] = Tool(
        name="gptqmodel",
        distribution="gptqmodel",
        module="gptqmodel",
        version="7.6.0",
        worker="worker_gptqmodel.py",
        environment={"GPTQMODEL_CPU_WORKERS": str(os.cpu_count() or 1)},
    )

    bits: Literal[2, 3, 4, 8] = 4
    group_size: Literal[-1, 16, 32, 64, 128, 256, 512, 1024] = Field(128, description="-1: one scale per row")
    sym: bool = True
    desc_act: bool = Field(False, description="columns by falling activation energy")
    act_group_aware: bool | None = Field(None, description="default: with groups and without desc_act")
    damp_percent: float = Field(0.05, gt=0, lt=1, description="of the Hessian's mean diagonal; the tool's default")

    @model_validator(mode="after")
    def _has_one_order(self) -> GptqModel:
        if self.desc_act and self.act_group_aware:
            raise ValueError("desc_act and act_group_aware are two orders of the columns; choose one")
        if self.act_group_aware and self.group_size == -1:
            raise ValueError("act_group_aware needs groups; give a group_size other than -1")
        return self

    def weights_after(self, weights: str) -> str:
        return "packed"

    def tool_options(self) -> dict[str, Any]:
        options = self.model_dump(include={"bits", "group_size", "sym", "desc_act", "act_group_aware", "damp_percent"})
        if self.act_group_aware is None:
            options["act_group_aware"] = not self.desc_act and self.group_size != -1
        return options

    def apply(self, handle: ModelHandle) -> ModelHandle:
        return self.packed(handle, self.bits)
