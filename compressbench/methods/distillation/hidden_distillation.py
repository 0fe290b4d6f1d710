"""`hidden-distillation`: the student's hidden states and attention learn to be the teacher's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Claim, Facts
from compressbench.methods.distillation.layer_mapping import Pairs, pairs_of
from compressbench.methods.distillation.teachers import Taught
from compressbench.methods.distillation.training import Lesson, labelled_rows, train, training_batches, unfreeze
from compressbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Layer = Annotated[int, Field(ge=0)]


class HiddenDistillation(Taught):
    """Layer by layer: TinyBERT (arXiv:1909.10351) for hidden states, MiniLM (arXiv:2002.10957) for attention.

    loss = hidden_weight * sum over mapped pairs of the mean squared error of hidden states
    + attention_weight * sum over mapped pairs of KL(teacher ‖ student) of attention
    + logit_weight * T² * KL(teacher ‖ student) of the logits. Padding counts nowhere, and labels are not learned.

    Attention is compared as probabilities by KL, as in MiniLM; TinyBERT's unnormalised scores are not to be had from
    transformers. Probabilities come after dropout, so the student trains without any dropout when attention counts, and
    with eager kernels; the models' own attention is put back at the end. Where widths differ, one learned projection
    (no bias, shared by all layers) maps the student's states; it is dropped after training.
    """

    facts: ClassVar[Facts] = Facts(
        accepts=frozenset({"float32", "bfloat16"}),
        needs_training_data=True,
        needs_teacher=True,
        paper="arXiv:1909.10351",
    )

    layer_mapping: Literal["uniform", "skip", "last"] | tuple[tuple[Layer, Layer], ...] = Field(
        "uniform", description="or pairs [student's, teacher's]: 0 is the embeddings, 1 the first layer"
    )
    hidden_weight: float = Field(1.0, ge=0)
    attention_weight: float = Field(1.0, ge=0, description="0: attention is neither compared nor computed")
    logit_weight: float = Field(1.0, ge=0)
    temperature: float = Field(1.0, gt=0, le=1000, description="of the logits")

    @model_validator(mode="after")
    def _has_something_to_learn(self) -> HiddenDistillation:
        if not self.hidden_weight + self.attention_weight + self.logit_weight:
            raise ValueError("give at least one of hidden_weight, attention_weight and logit_weight")
        if not self.layer_mapping:
            raise ValueError("layer_mapping must have at least one pair")
        pairs = [(1, 1)] if isinstance(self.layer_mapping, str) else self.layer_mapping
        if self.attention_weight and not any(one and other for one, other in pairs):
            raise ValueError("attention_weight needs a pair of layers; embeddings (0) have no attention")
        return self

    def check_model(self, config: Mapping[str, Any]) -> None:
        super().check_model(config)
        if isinstance(config.get("depths"), list):
            raise UnsupportedError(
                "a hierarchical model's layers have different shapes, and can't be compared pair by pair",
                do="Use logit-distillation.",
            )

    def apply(self, handle: ModelHandle) -> ModelHandle:
        handle, teacher = self.roles(handle, compares_logits=self.logit_weight > 0)
        student = unfreeze(handle.model, self)
        numbers = [model.config.get_text_config().num_hidden_layers for model in (student, teacher)]
        pairs = pairs_of(self.layer_mapping, *numbers)
        projection = self._projection(student, teacher, handle)
        comparison = _Comparison(self, student, teacher, pairs, projection)
        extra = {} if projection is None else {"projection": projection}
        with _showing_attention([student, teacher] if self.attention_weight else []):
            if self.attention_weight:
                student.eval()  # the attention that models return has gone through dropout
            notes = train(self, handle, Lesson(student, comparison, training_batches(handle), extra=extra))
        notes |= {"layers": " ".join(f"{one}:{other}" for one, other in pairs)}
        claim = Claim(step="hidden-distillation", is_retrained=True)
        return handle.with_model(student, claim=claim, **notes, **self.notes_on_roles())

    def _projection(
        self, student: PreTrainedModel, teacher: PreTrainedModel, handle: ModelHandle
    ) -> torch.nn.Parameter | None:
        """A matrix (teacher's width x student's), drawn from the seed, where it is needed."""
        import torch

        width, wanted = (model.config.get_text_config().hidden_size for model in (student, teacher))
        if width == wanted or not self.hidden_weight:
            return None
        generator = torch.Generator().manual_seed(handle.supplies.seed)
        drawn = torch.randn(wanted, width, generator=generator) / width**0.5
        return torch.nn.Parameter(drawn.to(handle.device))


@dataclass(frozen=True)
class _Comparison:
    """The loss of one batch."""

    options: HiddenDistillation
    student: PreTrainedModel
    teacher: PreTrainedModel
    pairs: Pairs
    projection: torch.nn.Parameter | None

    def __call__(self, batch: dict[str, Any]) -> torch.Tensor:
        import torch

        options = self.options
        labels, asked = batch.pop("labels"), {"output_hidden_states": True}
        if options.attention_weight:
            asked["output_attentions"] = True
        with torch.no_grad():
            goal = self.teacher(**batch, **asked)
        found = self.student(**batch, **asked)
        counted = _counted(batch, found)
        loss = torch.zeros((), device=counted.device)
        if options.hidden_weight:
            loss = loss + options.hidden_weight * self._hidden(found, goal, counted)
        if options.attention_weight:
            loss = loss + options.attention_weight * self._attention(found, goal, counted)
        if options.logit_weight:
            loss = loss + options.logit_weight * self._logits(labels, found, goal)
        return loss

    def _hidden(self, found: Any, goal: Any, counted: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn import functional

        from compressbench.methods.maths.distance import hidden_state_loss

        ours, theirs = (_layers(output.hidden_states, "hidden states") for output in (found, goal))
        states = [(ours[one], theirs[other]) for one, other in self.pairs]
        if self.projection is not None:
            states = [(functional.linear(one.float(), self.projection), other) for one, other in states]
        return torch.stack([hidden_state_loss(one, other, counted) for one, other in states]).sum()

    def _attention(self, found: Any, goal: Any, counted: torch.Tensor) -> torch.Tensor:
        import torch

        from compressbench.methods.maths.distance import attention_divergence

        ours, theirs = (_layers(output.attentions, "attention") for output in (found, goal))
        maps = [(ours[one - 1], theirs[other - 1]) for one, other in self.pairs if one and other]
        for one, other in maps:
            if one.shape != other.shape:
                raise UnsupportedError(
                    "attention can't be compared between different numbers of heads",
                    got=f"{one.shape[1]} in the student and {other.shape[1]} in the teacher",
                    do="Set attention_weight: 0.",
                )
        return torch.stack([attention_divergence(one, other, counted) for one, other in maps]).sum()

    def _logits(self, labels: torch.Tensor, found: Any, goal: Any) -> torch.Tensor:
        from compressbench.methods.maths.distance import distillation_loss

        _, logits, wanted = labelled_rows(labels, found.logits, goal.logits)
        return distillation_loss(logits, wanted, self.options.temperature)


def _counted(batch: dict[str, Any], found: Any) -> torch.Tensor:
    """Where no padding is (batch x length): everywhere without a mask, which an image's patches never have."""
    import torch

    if "attention_mask" in batch:
        return batch["attention_mask"].bool()  # type: ignore[no-any-return]  # of the task
    states = _layers(found.hidden_states, "hidden states")[0]
    return torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)


def _layers(output: Any, what: str) -> tuple[torch.Tensor, ...]:
    """One tensor per layer. Raises UnsupportedError if the model returns none, or not for all layers."""
    if not output or any(each is None for each in output):
        raise UnsupportedError(
            f"one of the models does not return its {what}",
            do=f"Set {'hidden_weight' if what == 'hidden states' else 'attention_weight'}: 0, or choose another model.",
        )
    return tuple(output)


@contextmanager
def _showing_attention(models: list[PreTrainedModel]) -> Iterator[None]:
    """Eager attention, which alone returns its probabilities, for as long as the block lasts."""
    before = [model.config._attn_implementation for model in models]
    try:
        for model in models:
            model.set_attn_implementation("eager")
        yield
    finally:
        for model, own in zip(models, before, strict=True):
            model.set_attn_implementation(own)
