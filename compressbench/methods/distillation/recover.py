"""`recover`: short fine-tuning on the task's labels, to win back what compression cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from compressbench.core.protocols import Claim, Facts
from compressbench.methods.distillation.lora import Adapter, attached, parameters_of
from compressbench.methods.distillation.training import Lesson, Training, hard_loss, train, training_batches, unfreeze
from compressbench.methods.step import LinearStep
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch


class Recover(Training, LinearStep):
    """Cross-entropy on the labels of the training split; pruned weights stay zero.

    With `lora_rank` only low-rank adapters (arXiv:2106.09685) beside the chosen linear modules are trained, without
    dropout, and merged into them in the end; everything else stays bit for bit as it was. On a pruned module the adapter
    is masked like the weight, in training too.
    """

    facts: ClassVar[Facts] = Facts(
        accepts=frozenset({"float32", "bfloat16"}), needs_training_data=True, paper="arXiv:2106.09685"
    )

    lora_rank: int | None = Field(None, ge=1, le=65536, description="of the adapters; null: train all weights")
    lora_alpha: float = Field(16.0, gt=0, description="the adapters' output is scaled by lora_alpha / lora_rank")

    @model_validator(mode="after")
    def _adapters_have_a_rank(self) -> Recover:
        fields = type(self).model_fields
        idle = [name for name in ("lora_alpha", "targets", "ignore") if getattr(self, name) != fields[name].default]
        if self.lora_rank is None and idle:
            raise ValueError(f"{' and '.join(idle)} is about adapters: give lora_rank")
        return self

    def apply(self, handle: ModelHandle) -> ModelHandle:
        modules: tuple[str, ...] = ()
        left_out: Mapping[str, str] = {}
        if self.lora_rank is None:
            notes = self._train(handle, {})
        else:
            choice = self.choose(handle)
            modules, left_out = tuple(choice.modules), choice.left_out
            notes = self._train_adapters(handle, choice.modules, self.lora_rank)
        claim = Claim(step="recover", modules=modules, left_out=left_out, is_retrained=True)
        return handle.with_model(handle.model, claim=claim, **notes)

    def _train(self, handle: ModelHandle, adapters: Mapping[str, Adapter]) -> dict[str, Any]:
        student, extra = handle.model, parameters_of(adapters)
        if adapters:
            student.train().requires_grad_(False)
        else:
            unfreeze(student, self)

        def loss(batch: dict[str, Any]) -> torch.Tensor:
            labels = batch.pop("labels")
            return hard_loss(labels, student(**batch).logits)

        trained = [*extra.values(), *(each for each in student.parameters() if each.requires_grad)]
        notes = train(self, handle, Lesson(student, loss, training_batches(handle), name="recover", extra=extra))
        return {**notes, "num_trained_parameters": sum(each.numel() for each in trained)}

    def _train_adapters(self, handle: ModelHandle, modules: Mapping[str, torch.nn.Linear], rank: int) -> dict[str, Any]:
        import torch

        torch.manual_seed(handle.supplies.seed)
        adapters = {name: Adapter.beside(module, rank, self.lora_alpha) for name, module in modules.items()}
        with attached(adapters):
            notes = self._train(handle, adapters)
        for adapter in adapters.values():
            adapter.merge()
        return notes
