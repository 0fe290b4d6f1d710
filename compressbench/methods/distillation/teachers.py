"""Who teaches and who learns: the baseline or another model, the model in hand or another one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from compressbench.core.errors import UnsupportedError
from compressbench.methods.distillation.training import Training
from compressbench.models.handle import ModelHandle
from compressbench.recipe.schema import ModelSpec, OneLine

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Taught(Training):
    """Options of a step in which a student learns from a teacher."""

    teacher: OneLine | None = Field(None, description="the id of another model as teacher; null: the baseline")
    teacher_revision: OneLine | None = Field(None, description="its commit, tag or branch on the Hub")
    student: OneLine | None = Field(None, description="the id of a model that replaces the one in hand as student")
    student_revision: OneLine | None = Field(None, description="its commit, tag or branch on the Hub")

    @model_validator(mode="after")
    def _revisions_have_a_model(self) -> Taught:
        for role in ("teacher", "student"):
            if getattr(self, f"{role}_revision") is not None and getattr(self, role) is None:
                raise ValueError(f"{role}_revision needs {role}")
        return self

    def roles(self, handle: ModelHandle, *, compares_logits: bool) -> tuple[ModelHandle, PreTrainedModel]:
        """The student's handle and the teacher in eval mode.

        Both must read the tokens of the training data, which are those of the model in hand; where their logits are
        compared, both must have as many of them in the same order. Raises UnsupportedError that says what differs.
        """
        if (self.teacher is None and handle.supplies.teacher is None) or handle.supplies.training_batches is None:
            raise UnsupportedError("distillation needs a teacher and training data, and was given none")
        student, teacher = self._student(handle), self._teacher(handle)
        _require_same_tokenizer(student, handle, "the student")
        _require_same_tokenizer(teacher, handle, "the teacher")
        if student is not handle:
            _require_same_logits(student, handle, "the student and the model in hand")
        if compares_logits:
            _require_same_logits(teacher, student, "the teacher and the student")
        return student, teacher.model.eval()

    def notes_on_roles(self) -> dict[str, Any]:
        """Which models took part, where the recipe names them."""
        named = {role: getattr(self, role) for role in ("teacher", "student") if getattr(self, role) is not None}
        revisions = {role: getattr(self, f"{role}_revision") for role in named}
        return {role: f"{id_}@{revisions[role]}" if revisions[role] else id_ for role, id_ in named.items()}

    def _teacher(self, handle: ModelHandle) -> ModelHandle:
        if self.teacher is not None:
            return _load(handle, ModelSpec(id=self.teacher, revision=self.teacher_revision))
        assert handle.supplies.teacher is not None  # noqa: S101 -- `roles` saw to it
        return handle.supplies.teacher()

    def _student(self, handle: ModelHandle) -> ModelHandle:
        if self.student is None:
            return handle
        data = {"id": self.student, "revision": self.student_revision, "dtype": handle.weights}
        loaded = _load(handle, ModelSpec.model_validate(data))
        # it brings no claims: what earlier steps did was done to the model that goes
        return replace(loaded, supplies=handle.supplies)


def _load(handle: ModelHandle, spec: ModelSpec) -> ModelHandle:
    if handle.supplies.load_model is None:
        raise UnsupportedError(f"the model '{spec.id}' can't be loaded here, because no loader was given")
    return handle.supplies.load_model(spec)


def _require_same_tokenizer(handle: ModelHandle, data: ModelHandle, who: str) -> None:
    if handle.tokenizer_id != data.tokenizer_id:
        raise UnsupportedError(
            f"{who} has another tokenizer than the model whose training data it reads",
            where=handle.source.id,
            got=f"{handle.tokenizer_id} instead of {data.tokenizer_id}",
            do="Choose a model with the same tokenizer.",
        )


def _require_same_logits(one: ModelHandle, other: ModelHandle, who: str) -> None:
    found, wanted = num_logits(one), num_logits(other)
    if found != wanted:
        raise UnsupportedError(
            f"{who} have different numbers of logits",
            where=one.source.id,
            got=f"{found} and {wanted}",
            do="Choose a model with the same labels, or with a vocabulary of the same size.",
        )
    ours, theirs = _label_names(one), _label_names(other)
    if ours != theirs and sorted(ours) == sorted(theirs):
        raise UnsupportedError(f"{who} have the same labels in another order", where=one.source.id, got=f"{ours}")


def num_logits(handle: ModelHandle) -> int:
    """Labels of a classifier, or entries of a language model's vocabulary (which may be more than its tokenizer's)."""
    config: Any = handle.model.config
    return int(config.get_text_config().vocab_size if handle.head == "causal-lm" else config.num_labels)


def _label_names(handle: ModelHandle) -> list[str]:
    if handle.head == "causal-lm":
        return []
    return [str(name) for name in (handle.model.config.id2label or {}).values()]
