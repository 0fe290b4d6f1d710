"""`gkd`: a language model learns from its teacher on texts that it writes itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from compressbench.core.protocols import Claim, Facts
from compressbench.methods.distillation.generation import (
    Writing,
    check_is_language_model,
    check_positions,
    num_known_tokens,
    require_language_model,
)
from compressbench.methods.distillation.teachers import Taught
from compressbench.methods.distillation.training import Lesson, labelled_rows, train, training_batches, unfreeze
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Gkd(Taught):
    """Generalized knowledge distillation, on-policy (Agarwal et al. 2024), with the names of TRL's GKDTrainer.

    Each batch is, with probability `lmbda`, continued by the student (on-policy); otherwise, with `seq_kd`, continued by
    the teacher; otherwise the training data as they are. The loss is the generalized Jensen-Shannon divergence of the
    two models' next tokens, averaged over the new tokens (of training data: over all that have a label). `beta` 0 is
    KL(teacher ‖ student), 1 is KL(student ‖ teacher). `temperature` divides the logits both of the loss and of the
    draw; there is no factor T². No gradient goes through the draw.
    """

    facts: ClassVar[Facts] = Facts(
        accepts=frozenset({"float32", "bfloat16"}),
        needs_training_data=True,
        needs_teacher=True,
        paper="arXiv:2306.13649",
    )

    lmbda: float = Field(0.5, ge=0, le=1, description="the share of batches that the student writes itself")
    beta: float = Field(0.5, ge=0, le=1, description="0: forward KL, 1: reverse KL, between: Jensen-Shannon")
    temperature: float = Field(0.9, gt=0, le=1000)
    seq_kd: bool = Field(False, description="the other batches are written by the teacher")
    prompt_tokens: int = Field(32, ge=1, le=1_000_000, description="of a training window, before what is written")
    max_new_tokens: int = Field(64, ge=1, le=1_000_000)

    def check_model(self, config: Mapping[str, Any]) -> None:
        check_is_language_model(config)
        if self.lmbda or self.seq_kd:
            check_positions(config, self.prompt_tokens, self.max_new_tokens)

    def apply(self, handle: ModelHandle) -> ModelHandle:
        require_language_model(handle)
        handle, teacher = self.roles(handle, compares_logits=True)
        writing = Writing(self.prompt_tokens, self.max_new_tokens, num_known_tokens(handle), self.temperature)
        if self.lmbda or self.seq_kd:
            writing.require_positions(handle.model, teacher)
        student = unfreeze(handle.model, self)
        notes = train(self, handle, Lesson(student, _Loss(self, student, teacher, writing), training_batches(handle)))
        claim = Claim(step="gkd", is_retrained=True)
        return handle.with_model(student, claim=claim, **notes, **self.notes_on_roles())


@dataclass(frozen=True)
class _Loss:
    options: Gkd
    student: PreTrainedModel
    teacher: PreTrainedModel
    writing: Writing

    def __call__(self, batch: dict[str, Any]) -> torch.Tensor:
        import torch

        from compressbench.methods.maths.distance import generalized_jsd

        batch = self._text(batch)
        labels = batch.pop("labels")
        with torch.no_grad():
            goal = self.teacher(**batch).logits
        _, logits, goal = labelled_rows(labels, self.student(**batch).logits, goal)
        return generalized_jsd(logits, goal, beta=self.options.beta, temperature=self.options.temperature)

    def _text(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What this batch is read from; the draw is the process's random state, which the seed decides."""
        import torch

        is_on_policy = float(torch.rand(())) < self.options.lmbda
        if not (is_on_policy or self.options.seq_kd):
            return batch
        return self.writing.continued(self.student if is_on_policy else self.teacher, batch)
