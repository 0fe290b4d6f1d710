"""What every task can declare before a run: which difference doesn't matter, and which capability it tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from compressbench.core.questions import SampleRow
from compressbench.core.spec import Spec

Stratum = Literal["", "knowledge", "reasoning", "language", "instruction", "multilingual", "safety", "long context"]


class Declared(Spec):
    """A task whose metric is the weighted mean of its scores, if it doesn't say otherwise."""

    is_binary: ClassVar[bool] = False
    is_log: ClassVar[bool] = False

    margin: float | None = Field(
        None,
        gt=0,
        description="The largest difference that doesn't matter, in the unit of the metric (0.005 is half a point of "
        "accuracy); of a perplexity, as a fraction of the baseline's.",
    )
    stratum: Stratum = Field("", description="The capability that the task tests.")

    def summarize(self, rows: Sequence[SampleRow]) -> float:
        """The metric of these rows, at least one."""
        return weighted_mean(rows)


def weighted_mean(rows: Sequence[SampleRow]) -> float:
    return sum(row.score * row.weight for row in rows) / sum(row.weight for row in rows)
