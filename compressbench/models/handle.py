"""A model in flight between loading and its runtime."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressbench.core.calibration import Calibration, CalibrationSet
from compressbench.core.deploying import Note
from compressbench.core.progress import Progress, SilentProgress
from compressbench.core.protocols import BatchSource, Claim
from compressbench.models.heads import processor_id
from compressbench.recipe.schema import ModelSpec
from compressbench.records.record import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Supplies:
    """What a step may ask for beyond the model itself. A method declares in its facts which of them it needs.

    `load_model` loads another model with the same head onto the same device. `checkpoints` is a folder of the step's
    own where it may keep what lets it go on after an interruption; it outlives the process until the cell is done.
    """

    teacher: Callable[[], ModelHandle] | None = None
    training_batches: BatchSource | None = None
    calibration: Callable[[Calibration], CalibrationSet] | None = None
    load_model: Callable[[ModelSpec], ModelHandle] | None = None
    checkpoints: Path | None = None
    seed: int = 0
    progress: Progress = field(default_factory=SilentProgress)


@dataclass(frozen=True)
class ModelHandle:
    """`head` is a name of models.heads.HEADS; `tokenizer` turns samples into inputs for it: of images it is an image
    processor, of speech a processor of sounds and texts. `weights` is the format of the linear layers' weights (float32,
    bfloat16, float16, int8, packed); `notes` is what the last step wants to have recorded about itself, `claims` what all
    steps say to have done, for the audit.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: ModelSource
    head: str
    weights: str
    device: str = "cpu"
    supplies: Supplies = field(default_factory=Supplies)
    notes: Mapping[str, Note] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()

    def with_model(
        self, model: PreTrainedModel, *, weights: str | None = None, claim: Claim | None = None, **notes: Note
    ) -> ModelHandle:
        """The handle after a step: its model, the weight format if that changed, the step's claim and its notes."""
        claims = self.claims if claim is None else (*self.claims, claim)
        return replace(self, model=model, weights=weights or self.weights, claims=claims, notes=notes)

    def copy(self, supplies: Supplies | None = None) -> ModelHandle:
        """A handle with weights of its own, for a candidate that starts from this model."""
        return replace(self, model=copy.deepcopy(self.model), supplies=supplies or self.supplies, notes={})

    @property
    def tokenizer_id(self) -> str:
        """The tokenizer's class, size and a hash of its vocabulary; class and settings of what prepares other inputs."""
        return processor_id(self.tokenizer)

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.model.config.to_dict())
