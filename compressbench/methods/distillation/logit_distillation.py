"""`logit-distillation`: the model in hand learns to give the baseline's logits."""

from __future__ import annotations

from itertools import chain, count, islice
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compressbench.core.errors import CellError, UnsupportedError
from compressbench.core.protocols import Batch, Facts
from compressbench.methods.step import Step
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class LogitDistillation(Step):
    """Knowledge distillation (Hinton et al. 2015) on the training split of the recipe's first task.

    loss = alpha * T² * KL(teacher ‖ student) + (1 - alpha) * cross-entropy. The teacher is the baseline, in eval mode.
    Language models distil every position that has a label. `precision: bfloat16` computes both passes under autocast;
    the weights stay as they were. AdamW with linear warm-up over 10 % of the steps and linear decay.
    """

    facts: ClassVar[Facts] = Facts(
        accepts=frozenset({"float32", "bfloat16"}),
        needs_training_data=True,
        needs_teacher=True,
        paper="arXiv:1503.02531",
    )

    temperature: float = Field(2.0, gt=0, le=1000)
    alpha: float = Field(0.9, ge=0, le=1, description="weight of the teacher; 1 - alpha is that of the labels")
    num_epochs: float = Field(1.0, gt=0, le=1000, description="passes over the training samples; fractions are allowed")
    max_samples: int | None = Field(None, ge=1, description="use only so many training samples")
    batch_size: int = Field(32, ge=1, le=65536)
    learning_rate: float = Field(1e-4, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=1)
    freeze_embeddings: bool = Field(
        False, description="leave the input embeddings (and a head tied to them) as they are"
    )
    precision: Literal["float32", "bfloat16"] = Field("bfloat16", description="of the passes, by autocast")

    def num_training_samples(self, available: int) -> float:
        return min(available, self.max_samples or available) * self.num_epochs

    def apply(self, handle: ModelHandle) -> ModelHandle:
        import torch

        supplies = handle.supplies
        if supplies.teacher is None or supplies.training_batches is None:
            raise UnsupportedError("distillation needs a teacher and training data, and was given none")
        teacher, student = supplies.teacher().model.eval(), handle.model.train()
        torch.manual_seed(supplies.seed)
        student.requires_grad_(True)
        if self.freeze_embeddings:
            student.get_input_embeddings().requires_grad_(False)
        last_loss, steps = self._train(student, teacher, handle)
        return handle.with_model(student.eval().requires_grad_(False), num_steps=steps, last_loss=last_loss)

    def _train(self, student: PreTrainedModel, teacher: PreTrainedModel, handle: ModelHandle) -> tuple[float, int]:
        import torch

        batches = handle.supplies.training_batches
        assert batches is not None  # noqa: S101 -- apply saw to it
        epochs = (batches(self.batch_size, self.max_samples, handle.supplies.seed + number) for number in count())
        first = next(epochs)
        steps = max(1, round(len(first) * self.num_epochs))
        trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_up_then_decay(step, steps))
        zeros = _pruned_weights(student)
        recent: list[float] = []
        with handle.supplies.progress.bar("distil", steps) as bar:
            for batch in islice(chain(first, chain.from_iterable(epochs)), steps):
                loss = self._loss(student, teacher, batch, handle.device)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                _restore(zeros)
                recent.append(_finite(loss))
                bar.advance()
        return sum(recent[-10:]) / len(recent[-10:]), steps

    def _loss(self, student: PreTrainedModel, teacher: PreTrainedModel, batch: Batch, device: str) -> torch.Tensor:
        import torch

        from compressbench.methods.maths.distance import distillation_loss

        inputs = {name: tensor.to(device) for name, tensor in batch.items()}
        labels = inputs.pop("labels")
        use_half = self.precision == "bfloat16"
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=use_half):
            with torch.no_grad():
                goal = teacher(**inputs).logits
            logits = student(**inputs).logits
        logits, goal, labels = _rows(logits, goal, labels)
        hard = torch.nn.functional.cross_entropy(logits.float(), labels)
        return self.alpha * distillation_loss(logits, goal, self.temperature) + (1 - self.alpha) * hard


def _rows(
    logits: torch.Tensor, goal: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One row per label: sentences as they are; for tokens, position t predicts t + 1 and padding (-100) is left out."""
    if logits.dim() == 2:
        return logits, goal, labels
    targets = labels[:, 1:]
    counted = targets != -100
    return logits[:, :-1][counted], goal[:, :-1][counted], targets[counted]


def _pruned_weights(model: PreTrainedModel) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Linear weights that hold zeros, and where: training must not bring pruned weights back."""
    from torch import nn

    weights = [module.weight.data for module in model.modules() if isinstance(module, nn.Linear)]
    return [(weight, weight == 0) for weight in weights if bool((weight == 0).any())]


def _restore(zeros: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for weight, mask in zeros:
        weight.masked_fill_(mask, 0.0)


def _warm_up_then_decay(step: int, steps: int) -> float:
    warm_up = max(1, steps // 10)
    return min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))


def _finite(loss: torch.Tensor) -> float:
    import math

    value = float(loss.detach())
    if not math.isfinite(value):
        raise CellError(
            f"the distillation loss became {value}", do="Lower the learning_rate, or use precision: float32."
        )
    return value
