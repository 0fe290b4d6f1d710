"""`rtn`: every weight to the nearest point of a uniform grid, without data."""

from __future__ import annotations

from typing import ClassVar

from compressbench.core.protocols import Facts
from compressbench.methods.quantization.packed_step import GridOptions, naming, packed_handle, put_packed
from compressbench.methods.step import LinearStep
from compressbench.models.handle import ModelHandle


class Rtn(GridOptions, LinearStep):
    """Round-to-nearest in 2 to 8 bits, per output channel or per group (conventions of arXiv:2210.17323's code).

    The cheapest weight-only quantization and the one to beat. The bits are really packed; every call dequantizes, which
    saves memory and not time.
    """

    facts: ClassVar[Facts] = Facts(paper="arXiv:2210.17323")

    def apply(self, handle: ModelHandle) -> ModelHandle:
        from compressbench.methods.maths.uniform import rtn
        from compressbench.models.parts import matrix

        choice = self.choose(handle)
        for name, module in choice.modules.items():
            with naming(name):
                put_packed(handle, name, rtn(matrix(module), self.grid()))
        return packed_handle(handle, choice, "rtn", self.bits)
