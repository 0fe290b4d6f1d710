"""`latency`: the time of one call, from handing over the inputs to having the result."""

from __future__ import annotations

from typing import ClassVar

from compressbench.core.spec import Spec


class Latency(Spec):
    """Wall time of every call. The loop itself reads the monotonic clock, after the device has been synchronised."""

    scope: ClassVar[str] = "call"
