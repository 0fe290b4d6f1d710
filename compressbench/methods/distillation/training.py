"""One training loop for every method that trains: options, mixed precision, gradient accumulation, pruned zeros."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from compressbench.core.errors import CellError, UnsupportedError
from compressbench.core.protocols import Batch, BatchSource
from compressbench.core.spec import content_hash
from compressbench.methods.distillation.accelerator import one_accelerator
from compressbench.methods.distillation.checkpoint import Checkpoint, TrainingState
from compressbench.methods.step import Step
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Loss = Callable[[dict[str, Any]], "torch.Tensor"]
"""A scalar from one batch (tensors by name, on the model's device, `labels` among them); called under autocast."""


class Training(Step):
    """Options of a step that trains: AdamW, linear warm-up, linear decay, gradients clipped to a norm.

    `precision: bfloat16` computes the passes under autocast; the weights stay as they were. Weights of linear modules
    that are zero at the start (pruned ones) stay zero.
    """

    num_epochs: float = Field(1.0, gt=0, le=1000, description="passes over the training samples; fractions are allowed")
    max_samples: int | None = Field(None, ge=1, description="use only so many training samples")
    batch_size: int = Field(32, ge=1, le=65536)
    gradient_accumulation_steps: int = Field(1, ge=1, le=65536, description="batches whose gradients make one step")
    learning_rate: float = Field(1e-4, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=1)
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="the share of the steps in which the rate rises")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm over all weights")
    freeze_embeddings: bool = Field(
        False, description="leave the input embeddings (and a head tied to them) as they are"
    )
    precision: Literal["float32", "bfloat16"] = Field("bfloat16", description="of the passes, by autocast")
    checkpoint_every: int | None = Field(None, ge=1, description="steps between checkpoints to go on from; null: none")

    def check_model(self, config: Mapping[str, Any]) -> None:
        if config.get("is_encoder_decoder"):
            raise UnsupportedError(
                "an encoder-decoder gives label t at position t, and training here looks for it one position earlier",
                do="Choose steps that do not train.",
            )

    def num_training_samples(self, available: int) -> float:
        return min(available, self.max_samples or available) * self.num_epochs

    def num_steps(self, num_batches: int) -> int:
        """Steps of the optimizer, when one epoch has so many batches."""
        return max(1, round(num_batches * self.num_epochs / self.gradient_accumulation_steps))


@dataclass(frozen=True)
class Lesson:
    """What the loop trains and on what: parameters of `student` that require gradients, and those of `extra`.

    `batches` is asked for one epoch after the other, with seed, seed + 1, ... `kept` are tensors that the lesson puts
    away as it goes; they travel with the checkpoint. `name` stands at the progress bar.
    """

    student: PreTrainedModel
    loss: Loss
    batches: BatchSource
    name: str = "distil"
    extra: Mapping[str, torch.nn.Parameter] = field(default_factory=dict)
    kept: dict[str, torch.Tensor] = field(default_factory=dict)


def training_batches(handle: ModelHandle) -> BatchSource:
    """The source of training data. Raises UnsupportedError if there is none."""
    if handle.supplies.training_batches is None:
        raise UnsupportedError("this step needs training data, and was given none")
    return handle.supplies.training_batches


def unfreeze(model: PreTrainedModel, options: Training) -> PreTrainedModel:
    """The model in training mode, all of its parameters to be trained but those that the options exempt."""
    model.train().requires_grad_(True)
    if options.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    return model


def train(options: Training, handle: ModelHandle, lesson: Lesson) -> dict[str, Any]:
    """Train, and say how many steps it took and what the loss was at the end (mean of the last ten steps).

    Everything random is drawn from the handle's seed; on a CPU two runs give the same weights bit for bit, one that was
    interrupted and went on from its checkpoint among them. Leaves the student in eval mode and without gradients.
    Raises CellError if the loss is not finite.
    """
    import torch

    supplies, accumulated = handle.supplies, options.gradient_accumulation_steps
    torch.manual_seed(supplies.seed)
    first = lesson.batches(options.batch_size, options.max_samples, supplies.seed)
    if not len(first):
        raise CellError("there is no training batch", do="Raise max_samples, or give training data.")
    steps = options.num_steps(len(first))
    state = _start(options, handle, lesson)
    checkpoint = Checkpoint(supplies.checkpoints, options.checkpoint_every, _key(options, handle, state, steps))
    resumed_at = checkpoint.restore(state)

    def epoch(number: int) -> Sequence[Batch]:
        return lesson.batches(options.batch_size, options.max_samples, supplies.seed + number) if number else first

    batches = _batches(epoch, skip=state.step * accumulated)
    with (
        one_accelerator(handle.device, options.precision, accumulated) as accelerator,
        supplies.progress.bar(lesson.name, steps) as bar,
    ):
        loop = _Loop(options, lesson, state, accelerator, pruned_weights(lesson.student))
        if state.step:
            bar.advance(state.step)
        while state.step < steps:
            loop.step([next(batches) for _ in range(accumulated)], steps)
            if state.step < steps:
                checkpoint.save_when_due(state)
            bar.advance(note=f"loss {state.recent[-1]:.3g}")
    checkpoint.delete()
    lesson.student.eval().requires_grad_(False)
    notes = {"num_steps": steps, "last_loss": sum(state.recent) / len(state.recent)}
    return notes if resumed_at is None else {**notes, "resumed_at_step": resumed_at}


@dataclass(frozen=True)
class _Loop:
    options: Training
    lesson: Lesson
    state: TrainingState
    accelerator: Any
    zeros: list[tuple[torch.Tensor, torch.Tensor]]

    def step(self, batches: Sequence[Batch], steps: int) -> None:
        """One step of the optimizer on the mean loss over `batches`."""
        state, parameters = self.state, list(self.state.trained.values())
        factor = warm_up_then_decay(state.step, steps, self.options.warmup_ratio)
        total = 0.0
        for batch in batches:
            with self.accelerator.accumulate(self.lesson.student):
                total += self._backward(batch) / len(batches)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(parameters, self.options.max_grad_norm)
                    state.advance(self.options.learning_rate * factor)
                    _restore(self.zeros)
        state.recent = [*state.recent[-9:], total]

    def _backward(self, batch: Batch) -> float:
        inputs = {name: tensor.to(self.state.device) for name, tensor in batch.items()}
        with self.accelerator.autocast():
            loss = self.lesson.loss(inputs)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CellError(
                f"the training loss became {value}", do="Lower the learning_rate, or use precision: float32."
            )
        self.accelerator.backward(loss)
        return value


def _start(options: Training, handle: ModelHandle, lesson: Lesson) -> TrainingState:
    import torch

    trained = {name: each for name, each in lesson.student.named_parameters() if each.requires_grad}
    trained |= {f"extra.{name}": each for name, each in lesson.extra.items()}
    buffers = {name: each for name, each in lesson.student.named_buffers() if each.is_floating_point()}
    optimizer = torch.optim.AdamW(trained.values(), lr=options.learning_rate, weight_decay=options.weight_decay)
    return TrainingState(trained, buffers, lesson.kept, optimizer, handle.device)


def _key(options: Training, handle: ModelHandle, state: TrainingState, steps: int) -> str:
    """What has to be the same for a run to go on from another one's checkpoint."""
    shapes = {name: [str(each.dtype), *each.shape] for name, each in state.trained.items()}
    content = {"options": options.model_dump(mode="json"), "method": type(options).__name__, "steps": steps}
    return content_hash({**content, "seed": handle.supplies.seed, "device": handle.device, "trained": shapes})


def _batches(epoch: Callable[[int], Sequence[Batch]], skip: int) -> Iterator[Batch]:
    """Batches without end, epoch after epoch, from the one after the first `skip`."""
    for number in count():
        batches = epoch(number)
        yield from (batches[index] for index in range(skip, len(batches)))
        skip = max(0, skip - len(batches))


def warm_up_then_decay(step: int, steps: int, warmup_ratio: float) -> float:
    """The share of the learning rate in step `step` of `steps` (from 0): up to 1 in a straight line, then down to 0."""
    warm_up = max(1, int(steps * warmup_ratio))
    return min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))


def pruned_weights(model: torch.nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights to be trained, of linear modules (GPT-2's Conv1D among them), that hold zeros, and where.

    A head tied to the embeddings is not among them: what is zero there is the row of the padding token.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Linear | Conv1D)]
    candidates = [each for each in weights if each.requires_grad and id(each) not in embeddings]
    return [(each.data, each == 0) for each in candidates if bool((each == 0).any())]


def _restore(zeros: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for weight, mask in zeros:
        weight.masked_fill_(mask, 0.0)


def labelled_rows(labels: torch.Tensor, *logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The labels that count (rows), and of each of `logits` the rows (x classes) that they belong to.

    Sentences stay as they are; for tokens, position t predicts t + 1 and padding (-100) is left out.
    """
    if logits[0].dim() == 2:
        return labels, *logits
    targets = labels[:, 1:]
    counted = targets != -100
    return targets[counted], *(each[:, :-1][counted] for each in logits)


def hard_loss(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats over the labels that count, computed in float32."""
    from torch.nn import functional

    targets, rows = labelled_rows(labels, logits)
    return functional.cross_entropy(rows.float(), targets)
