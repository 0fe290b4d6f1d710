"""Calibration data: a few named samples that a method may look at, and never those that the model is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from compressbench.core.protocols import Batch
from compressbench.core.spec import Spec


class Calibration(Spec):
    """Which samples a method looks at. Left out, they are drawn from the training split of the recipe's first task."""

    data: str | None = Field(
        None, description="embedded:NAME, a local file or folder, or a Hub id; default: the task's"
    )
    split: str = Field("train", description="never the split that is evaluated")
    revision: str | None = None
    config: str | None = None
    column: str = Field("text", description="the column of a table that holds the text")
    num_samples: int = Field(128, ge=1, le=1_000_000)
    sequence_length: int | None = Field(
        None, ge=1, le=1_000_000, description="tokens per sample at most; default: the task's own window or max_length"
    )
    batch_size: int = Field(
        1, ge=1, le=65_536, description="samples per forward pass; 1 needs no padding and the least memory"
    )
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="decides the draw; default: the recipe's seed")


@dataclass(frozen=True)
class CalibrationSet:
    """Drawn samples as batches of model inputs (with attention_mask, 0 at padding) and where they came from."""

    batches: Sequence[Batch]
    data: str
    split: str
    revision: str
    num_samples: int
    num_tokens: int
    seed: int

    def describe(self) -> str:
        """One line for a record."""
        return (
            f"{self.data} {self.split} @ {self.revision[:24]}: {self.num_samples} samples, {self.num_tokens} tokens, "
            f"seed {self.seed}"
        )
