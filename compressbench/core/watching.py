"""Nobody watches: what a task shows its answers to where there is nothing to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Unwatched:
    """A `compressbench.core.protocols.Watch` that looks away."""

    def logits(self, ids: Sequence[str], logits: Any) -> None:
        pass

    def vectors(self, ids: Sequence[str], vectors: Any) -> None:
        pass
