"""`bnb-fp4`: 4-bit floating-point weights in blocks, computed by bitsandbytes."""

from __future__ import annotations

from typing import ClassVar

from compressbench.methods.quantization.bnb_nf4 import Bnb4Bit


class BnbFp4(Bnb4Bit):
    """FP4 as bitsandbytes has it: 0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3, 1 and their negatives, which isn't OCP's E2M1."""

    step: ClassVar[str] = "bnb-fp4"
    quant_type: ClassVar[str] = "fp4"
