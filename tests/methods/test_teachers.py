from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from lessons import are_equal, distance, perturbed, sentences, sharpened, supplied, weights, windows, without_dropout
from pydantic import ValidationError

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Claim
from compressbench.methods.distillation.gkd import Gkd
from compressbench.methods.distillation.hidden_distillation import HiddenDistillation
from compressbench.methods.distillation.logit_distillation import LogitDistillation
from compressbench.methods.distillation.sequence_distillation import SequenceDistillation
from compressbench.methods.distillation.teachers import Taught, num_logits
from compressbench.models.handle import ModelHandle
from compressbench.recipe.schema import ModelSpec
from compressbench.testing import tiny_causal_lm, tiny_classifier


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return sharpened(tiny_classifier(num_layers=1))


def with_loader(handle: ModelHandle, models: dict[str, ModelHandle], asked: list[ModelSpec]) -> ModelHandle:
    def load(spec: ModelSpec) -> ModelHandle:
        asked.append(spec)
        return models[spec.id]

    return handle.copy(replace(handle.supplies, load_model=load))


def with_other_words(handle: ModelHandle) -> ModelHandle:
    tokenizer = copy.deepcopy(handle.tokenizer)
    tokenizer.add_tokens(["zebra"])
    return replace(handle, tokenizer=tokenizer)


def test_another_model_can_teach_and_is_loaded_as_the_recipe_says(classifier: ModelHandle) -> None:
    other = sharpened(tiny_classifier(num_layers=1, seed=5))
    asked: list[ModelSpec] = []
    student = with_loader(supplied(perturbed(classifier), classifier, sentences()), {"some/teacher": other}, asked)
    step = LogitDistillation(
        teacher="some/teacher", teacher_revision="abc", alpha=1.0, num_epochs=15, learning_rate=3e-3
    )
    before = distance(student, other, sentences())
    done = step.apply(student)
    assert asked == [ModelSpec(id="some/teacher", revision="abc")]
    assert done.notes["teacher"] == "some/teacher@abc"
    assert "student" not in done.notes
    assert distance(done, other, sentences()) < 0.5 * before
    assert distance(done, other, sentences()) < distance(done, classifier, sentences())


def test_without_a_name_the_baseline_teaches_and_nothing_is_loaded(classifier: ModelHandle) -> None:
    asked: list[ModelSpec] = []
    student = with_loader(supplied(perturbed(classifier), classifier, sentences()), {}, asked)
    done = LogitDistillation().apply(student)
    assert asked == []
    assert not {"teacher", "student"} & set(done.notes)


def test_another_model_can_be_the_student(classifier: ModelHandle) -> None:
    other = without_dropout(sharpened(tiny_classifier(num_layers=2, seed=6)))
    other = replace(other, source=replace_id(other, "some/student"))
    asked: list[ModelSpec] = []
    in_hand = replace(perturbed(classifier), claims=(Claim(step="magnitude", sparsity=0.5),))
    handle = with_loader(supplied(in_hand, classifier, sentences(), seed=3), {"some/student": other}, asked)
    before = weights(handle)
    done = LogitDistillation(student="some/student", num_epochs=5, learning_rate=3e-3).apply(handle)
    assert asked == [ModelSpec(id="some/student", dtype="float32")]
    assert done.notes["student"] == "some/student"
    assert done.source.id == "some/student"
    assert done.model.config.num_hidden_layers == 2
    assert [claim.step for claim in done.claims] == ["logit-distillation"], "what was done to another model is no claim"
    assert done.supplies is handle.supplies
    assert are_equal(weights(handle), before), "the model in hand is not trained"


def replace_id(handle: ModelHandle, id_: str) -> Any:
    return handle.source.model_copy(update={"id": id_})


def test_a_student_is_loaded_in_the_format_of_the_model_in_hand(classifier: ModelHandle) -> None:
    asked: list[ModelSpec] = []
    half = replace(classifier.copy(), weights="bfloat16")
    handle = with_loader(supplied(half, classifier, sentences()), {"some/student": half.copy()}, asked)
    LogitDistillation(student="some/student").apply(handle)
    assert asked[0].dtype == "bfloat16"


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda: with_other_words(tiny_classifier(num_layers=1)), "another tokenizer"),
        (lambda: tiny_classifier(num_labels=4, num_layers=1), "different numbers of logits"),
    ],
)
def test_teacher_and_student_must_read_and_answer_alike(
    classifier: ModelHandle, role: str, change: Callable[[], ModelHandle], complaint: str
) -> None:
    handle = with_loader(supplied(classifier, classifier, sentences()), {"x/y": change()}, [])
    with pytest.raises(UnsupportedError, match=complaint) as caught:
        LogitDistillation(**{role: "x/y"}).apply(handle)
    assert role in caught.value.what
    assert "4 and 3" in caught.value.got or "-20-" in caught.value.got


def test_the_same_labels_in_another_order_are_refused(classifier: ModelHandle) -> None:
    other = classifier.copy()
    other.model.config.id2label = {0: "LABEL_1", 1: "LABEL_0", 2: "LABEL_2"}
    with pytest.raises(UnsupportedError, match="the same labels in another order"):
        LogitDistillation().apply(supplied(classifier, other, sentences()))


def test_only_methods_that_compare_logits_need_as_many(classifier: ModelHandle) -> None:
    many = tiny_classifier(num_labels=7, num_layers=1)
    with pytest.raises(UnsupportedError, match="different numbers of logits"):
        HiddenDistillation().apply(supplied(classifier, many, sentences()))
    HiddenDistillation(logit_weight=0).apply(supplied(classifier, many, sentences()))


def test_a_vocabulary_counts_with_its_padding() -> None:
    handle = tiny_causal_lm(num_layers=1, tied=False)
    assert num_logits(handle) == 19
    handle.model.resize_token_embeddings(24)
    assert num_logits(handle) == 24
    student = tiny_causal_lm(num_layers=1)
    for step in (LogitDistillation(), Gkd(max_new_tokens=4, prompt_tokens=4)):
        with pytest.raises(UnsupportedError, match="different numbers of logits") as caught:
            step.apply(supplied(student, handle, windows()))
        assert caught.value.got == "24 and 19"
    step_by_text = SequenceDistillation(max_new_tokens=4, prompt_tokens=4)
    assert step_by_text.apply(supplied(student, handle, windows())).notes["num_steps"] == 3


def test_without_a_loader_a_named_model_is_unsupported(classifier: ModelHandle) -> None:
    with pytest.raises(UnsupportedError, match="'x/y' can't be loaded here"):
        LogitDistillation(teacher="x/y").apply(supplied(classifier, classifier, sentences()))


def test_a_named_teacher_needs_no_baseline(classifier: ModelHandle) -> None:
    handle = with_loader(supplied(classifier, None, sentences()), {"x/y": classifier.copy()}, [])
    assert LogitDistillation(teacher="x/y").apply(handle).notes["num_steps"] == 4
    with pytest.raises(UnsupportedError, match="needs a teacher"):
        LogitDistillation().apply(handle)


@pytest.mark.parametrize(
    "options", [{"teacher_revision": "main"}, {"student_revision": "main"}, {"teacher": "two\nlines"}]
)
def test_half_a_name_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Taught(**options)


@pytest.mark.parametrize(
    "step",
    [
        LogitDistillation(),
        HiddenDistillation(),
        SequenceDistillation(prompt_tokens=3, max_new_tokens=3),
        Gkd(prompt_tokens=3, max_new_tokens=3, lmbda=0.5, seq_kd=True),
    ],
    ids=lambda step: type(step).__name__,
)
def test_no_method_changes_its_teacher(step: Any) -> None:
    teacher = sharpened(tiny_causal_lm(num_layers=1))
    teacher.model.train()
    before, attention = weights(teacher), teacher.model.config._attn_implementation
    done = step.apply(supplied(perturbed(teacher), teacher, windows()))
    assert are_equal(weights(teacher), before)
    assert not teacher.model.training
    assert all(parameter.grad is None for parameter in teacher.model.parameters())
    assert teacher.model.config._attn_implementation == attention == done.model.config._attn_implementation
    assert not done.model.training
    assert not any(parameter.requires_grad for parameter in done.model.parameters())
    assert done.claims[-1].is_retrained
    assert step.facts.needs_teacher
    assert step.facts.needs_training_data
