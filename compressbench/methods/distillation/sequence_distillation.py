"""`sequence-distillation`: a language model learns the texts that its teacher writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, overload

from pydantic import Field, model_validator

from compressbench.core.protocols import Batch, BatchSource, Claim, Facts
from compressbench.methods.distillation.generation import (
    Writing,
    check_is_language_model,
    check_positions,
    num_known_tokens,
    require_language_model,
)
from compressbench.methods.distillation.teachers import Taught
from compressbench.methods.distillation.training import Lesson, hard_loss, train, training_batches, unfreeze
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from transformers import PreTrainedModel


class SequenceDistillation(Taught):
    """Sequence-level knowledge distillation (Kim & Rush 2016).

    The teacher goes on with the first `prompt_tokens` of each training window, and the student learns what it wrote by
    cross-entropy; the rest of the window is not used. The most likely text is sought greedily (a beam of one), or texts
    are drawn from the teacher with `do_sample`. Each window is continued once, in the first epoch and in the teacher's
    own precision; later epochs see the same texts in another order. A teacher's probabilities are not needed, so its
    vocabulary may be padded differently.
    """

    facts: ClassVar[Facts] = Facts(
        accepts=frozenset({"float32", "bfloat16"}),
        needs_training_data=True,
        needs_teacher=True,
        paper="arXiv:1606.07947",
    )

    prompt_tokens: int = Field(32, ge=1, le=1_000_000)
    max_new_tokens: int = Field(64, ge=1, le=1_000_000)
    do_sample: bool = Field(False, description="draw the teacher's tokens rather than take the likeliest")
    temperature: float = Field(1.0, gt=0, le=1000, description="of the draw")

    @model_validator(mode="after")
    def _temperature_is_used(self) -> SequenceDistillation:
        if not self.do_sample and self.temperature != 1.0:
            raise ValueError("temperature needs do_sample: true")
        return self

    def check_model(self, config: Mapping[str, Any]) -> None:
        check_is_language_model(config)
        check_positions(config, self.prompt_tokens, self.max_new_tokens)

    def apply(self, handle: ModelHandle) -> ModelHandle:
        require_language_model(handle)
        handle, teacher = self.roles(handle, compares_logits=False)
        temperature = self.temperature if self.do_sample else None
        writing = Writing(self.prompt_tokens, self.max_new_tokens, num_known_tokens(handle), temperature)
        writing.require_positions(handle.model, teacher)
        student = unfreeze(handle.model, self)
        texts = _TeachersTexts(training_batches(handle), teacher, writing, handle)

        def loss(batch: dict[str, Any]) -> torch.Tensor:
            labels = batch.pop("labels")
            return hard_loss(labels, student(**batch).logits)

        notes = train(self, handle, Lesson(student, loss, texts, kept=texts.written))
        claim = Claim(step="sequence-distillation", is_retrained=True)
        return handle.with_model(student, claim=claim, **notes, **self.notes_on_roles())


@dataclass(frozen=True)
class _TeachersTexts:
    """A source of batches: in the first epoch the source's own, continued by the teacher as they are asked for; then the
    same rows in a new order. `written` holds ids.N and labels.N of batch N, and is all that has to outlive a crash.
    """

    source: BatchSource
    teacher: PreTrainedModel
    writing: Writing
    handle: ModelHandle
    written: dict[str, torch.Tensor] = field(default_factory=dict)

    def __call__(self, batch_size: int, max_samples: int | None, seed: int) -> Sequence[Batch]:
        if seed == self.handle.supplies.seed:
            return _Continued(self, self.source(batch_size, max_samples, seed))
        return self._shuffled(batch_size, seed)

    def continued(self, index: int, batch: Batch) -> Batch:
        import torch

        if f"ids.{index}" not in self.written:
            prompts = {name: tensor.to(self.handle.device) for name, tensor in batch.items()}
            new = self.writing.continued(self.teacher, prompts)
            self.written[f"ids.{index}"], self.written[f"labels.{index}"] = new["input_ids"].cpu(), new["labels"].cpu()
        ids = self.written[f"ids.{index}"]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": self.written[f"labels.{index}"]}

    def _shuffled(self, batch_size: int, seed: int) -> list[Batch]:
        import torch

        count = len(self.written) // 2
        ids, labels = (torch.cat([self.written[f"{name}.{at}"] for at in range(count)]) for name in ("ids", "labels"))
        order = torch.split(torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed)), batch_size)
        return [
            {"input_ids": ids[rows], "attention_mask": torch.ones_like(ids[rows]), "labels": labels[rows]}
            for rows in order
        ]


class _Continued(Sequence[Batch]):
    """The batches of the first epoch; the teacher writes when one of them is asked for."""

    def __init__(self, texts: _TeachersTexts, batches: Sequence[Batch]) -> None:
        self._texts, self._batches = texts, batches

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | Sequence[Batch]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return self._texts.continued(index, self._batches[index])
