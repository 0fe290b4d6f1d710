"""`logit-distillation`: the model in hand learns to give a teacher's logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from compressbench.core.protocols import Claim, Facts
from compressbench.methods.distillation.teachers import Taught
from compressbench.methods.distillation.training import Lesson, labelled_rows, train, training_batches, unfreeze
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class LogitDistillation(Taught):
    """Knowledge distillation (Hinton et al. 2015) on the training split of the recipe's first task.

    loss = alpha * T² * KL(teacher ‖ student) + (1 - alpha) * cross-entropy. The teacher is the baseline, or the model
    that `teacher` names, in eval mode. Language models distil every position that has a label.
    """

    facts: ClassVar[Facts] = Facts(
        accepts=frozenset({"float32", "bfloat16"}),
        needs_training_data=True,
        needs_teacher=True,
        paper="arXiv:1503.02531",
    )

    temperature: float = Field(2.0, gt=0, le=1000)
    alpha: float = Field(0.9, ge=0, le=1, description="weight of the teacher; 1 - alpha is that of the labels")

    def apply(self, handle: ModelHandle) -> ModelHandle:
        handle, teacher = self.roles(handle, compares_logits=True)
        student = unfreeze(handle.model, self)

        def loss(batch: dict[str, Any]) -> torch.Tensor:
            return self._loss(student, teacher, batch)

        notes = train(self, handle, Lesson(student, loss, training_batches(handle)))
        claim = Claim(step="logit-distillation", is_retrained=True)
        return handle.with_model(student, claim=claim, **notes, **self.notes_on_roles())

    def _loss(self, student: PreTrainedModel, teacher: PreTrainedModel, batch: dict[str, Any]) -> torch.Tensor:
        import torch
        from torch.nn import functional

        from compressbench.methods.maths.distance import distillation_loss

        labels = batch.pop("labels")
        with torch.no_grad():
            goal = teacher(**batch).logits
        labels, logits, goal = labelled_rows(labels, student(**batch).logits, goal)
        hard = functional.cross_entropy(logits.float(), labels)
        return self.alpha * distillation_loss(logits, goal, self.temperature) + (1 - self.alpha) * hard
