from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lessons import (
    Asked,
    Listener,
    are_equal,
    distance,
    listened,
    padded,
    perturbed,
    resumed,
    sentences,
    sharpened,
    supplied,
    weights,
    windows,
    without_dropout,
)
from pydantic import ValidationError

from compressbench.core.errors import CellError, UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.methods.distillation.logit_distillation import LogitDistillation
from compressbench.methods.pruning.magnitude import Magnitude
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.parts import target_linears
from compressbench.testing import tiny_causal_lm, tiny_classifier


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return sharpened(tiny_classifier())


@pytest.fixture(scope="module")
def causal_lm() -> ModelHandle:
    return sharpened(tiny_causal_lm(num_layers=1))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_student_comes_closer_to_its_teacher(classifier: ModelHandle, causal_lm: ModelHandle, precision: Any) -> None:
    for teacher, batches in ((classifier, sentences()), (causal_lm, windows())):
        student = perturbed(teacher)
        step = LogitDistillation(num_epochs=10, learning_rate=3e-3, precision=precision)
        done = step.apply(supplied(student, teacher, batches))
        assert distance(done, teacher, batches) < 0.5 * distance(student, teacher, batches)
        assert done.notes["num_steps"] == 10 * len(batches)
        assert done.weights == "float32"
        assert {tensor.dtype for tensor in done.model.parameters()} == {torch.float32}


def test_without_the_teachers_part_the_labels_are_learned(classifier: ModelHandle) -> None:
    def cross_entropy(handle: ModelHandle) -> float:
        with torch.inference_mode():
            return sum(float(handle.model.eval()(**batch).loss) for batch in batches) / len(batches)

    batches = sentences()
    step = LogitDistillation(alpha=0.0, num_epochs=10, learning_rate=3e-3, precision="float32")
    done = step.apply(supplied(perturbed(classifier), classifier, batches))
    assert cross_entropy(done) < 0.8 * cross_entropy(perturbed(classifier))
    assert distance(done, classifier, batches) > distance(perturbed(classifier), classifier, batches)


def test_the_reported_loss_is_the_one_of_the_recipe(classifier: ModelHandle) -> None:
    batches = sentences(count=1)
    student = without_dropout(perturbed(classifier))
    step = LogitDistillation(alpha=0.7, temperature=3.0, num_epochs=1, precision="float32")
    done = step.apply(supplied(student, classifier, batches))
    with torch.inference_mode():
        hard = float(student.model.eval()(**batches[0]).loss)
    expected = 0.7 * distance(student, classifier, batches, 3.0) + 0.3 * hard
    assert done.notes["last_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_labels_of_a_language_model_are_the_tokens_that_follow(causal_lm: ModelHandle) -> None:
    (batch,) = windows(count=1)
    labels = batch["labels"].clone()
    labels[1, 3:] = -100
    masked = {**batch, "labels": labels}
    student = perturbed(causal_lm)
    done = LogitDistillation(alpha=0.0, precision="float32").apply(supplied(student, causal_lm, [masked]))
    with torch.inference_mode():
        expected = float(student.model(**masked).loss)  # transformers' own
    assert done.notes["last_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_teacher_stays_bitwise_as_it_was_and_in_eval_mode(classifier: ModelHandle) -> None:
    teacher = classifier.copy()
    teacher.model.train()
    before = weights(teacher)
    done = LogitDistillation(num_epochs=1).apply(supplied(perturbed(teacher), teacher, sentences()))
    assert are_equal(weights(teacher), before)
    assert not teacher.model.training
    assert all(parameter.grad is None for parameter in teacher.model.parameters())
    assert not done.model.training
    assert not any(parameter.requires_grad for parameter in done.model.parameters())
    assert not are_equal(weights(done), weights(perturbed(teacher)))


def test_the_seed_decides_every_weight(classifier: ModelHandle) -> None:
    def run(seed: int, before: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(before)  # what happened in the process before must not matter
        return weights(LogitDistillation().apply(supplied(perturbed(classifier), classifier, sentences(), seed)))

    first = run(0, before=7)
    assert are_equal(run(0, before=8), first)
    assert not are_equal(run(1, before=7), first), "dropout is drawn from the seed"


@pytest.mark.parametrize("options", [{"sparsity": 0.6}, {"mask_structure": "2:4"}])
def test_pruned_weights_stay_zero_and_the_others_move(causal_lm: ModelHandle, options: dict[str, Any]) -> None:
    pruned = Magnitude(**options).apply(causal_lm.copy())
    masks = {name: module.weight == 0 for name, module in target_linears(pruned.model).items()}
    before = weights(pruned)
    done = LogitDistillation(num_epochs=2, learning_rate=1e-2).apply(supplied(pruned, causal_lm, windows()))
    for name, module in target_linears(done.model).items():
        assert torch.equal(module.weight == 0, masks[name])
        moved = module.weight != before[f"{name}.weight"]
        assert float(moved[~masks[name]].float().mean()) > 0.9


def test_positions_without_a_label_teach_nothing(causal_lm: ModelHandle) -> None:
    def run(tail: int, label: int) -> dict[str, torch.Tensor]:
        batches: list[Batch] = []
        for batch in windows():
            ids, labels = batch["input_ids"].clone(), batch["labels"].clone()
            ids[:, 5:], labels[:, 5:] = tail, label
            batches.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
        step = LogitDistillation(num_epochs=2, learning_rate=1e-2, precision="float32")
        return weights(step.apply(supplied(perturbed(causal_lm), causal_lm, batches)))

    masked = run(tail=6, label=-100)
    for name, tensor in run(tail=11, label=-100).items():  # causal attention: what comes later changes nothing before
        torch.testing.assert_close(tensor, masked[name], rtol=1e-5, atol=1e-7)
    changed = run(tail=6, label=6)
    assert any(float((tensor - masked[name]).abs().max()) > 1e-3 for name, tensor in changed.items())


def test_epochs_and_samples_decide_how_many_steps_are_taken(classifier: ModelHandle) -> None:
    asked: Asked = []
    for epochs, steps in ((0.5, 2), (1.0, 4), (2.25, 9), (0.01, 1)):
        step = LogitDistillation(num_epochs=epochs, batch_size=8, max_samples=32)
        done = step.apply(supplied(perturbed(classifier), classifier, sentences(), seed=5, asked=asked))
        assert done.notes["num_steps"] == steps
    # every epoch has an order of its own, and no epoch is made that isn't needed
    assert asked == [(8, 32, 5), (8, 32, 5), (8, 32, 5), (8, 32, 6), (8, 32, 7), (8, 32, 5)]
    assert LogitDistillation(num_epochs=2.5, max_samples=40).num_training_samples(100) == 100
    assert LogitDistillation(num_epochs=2.5).num_training_samples(100) == 250
    assert LogitDistillation(max_samples=400).num_training_samples(100) == 100


def test_progress_is_told_once_per_step(classifier: ModelHandle) -> None:
    listener = Listener()
    student = supplied(perturbed(classifier), classifier, sentences())
    LogitDistillation().apply(listened(student, listener))
    assert listener.bars == [("distil", 4)]
    assert listener.amounts == [1] * 4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_run_ends_with_the_same_bits(classifier: ModelHandle, tmp_path: Path, precision: Any) -> None:
    student = supplied(perturbed(classifier), classifier, sentences(), seed=3)  # with dropout
    step = LogitDistillation(num_epochs=2, learning_rate=3e-3, precision=precision, checkpoint_every=2)
    whole, cut = step.apply(student.copy()), resumed(step, student, tmp_path, cut_after=5)
    assert are_equal(weights(whole), weights(cut))
    assert cut.notes["resumed_at_step"] == 4
    assert cut.notes["last_loss"] == whole.notes["last_loss"]


def test_a_student_equal_to_its_teacher_learns_nothing(classifier: ModelHandle, causal_lm: ModelHandle) -> None:
    for teacher, batches in ((classifier, sentences()), (causal_lm, windows())):
        student = without_dropout(teacher.copy())
        step = LogitDistillation(alpha=1.0, num_epochs=1, precision="float32")
        assert step.apply(supplied(student, teacher, batches[:1])).notes["last_loss"] == pytest.approx(0, abs=1e-6)


def test_what_stands_in_the_padding_teaches_nothing(classifier: ModelHandle, causal_lm: ModelHandle) -> None:
    step = LogitDistillation(num_epochs=2, learning_rate=3e-3, precision="float32")
    for teacher, batches in ((classifier, sentences()), (causal_lm, windows())):
        student = without_dropout(perturbed(teacher))
        plain = step.apply(supplied(student, teacher, batches))
        for token in (0, 7):
            done = step.apply(supplied(student, teacher, padded(batches, token)))
            assert done.notes["last_loss"] == pytest.approx(plain.notes["last_loss"], rel=1e-4)
            # not the weights: the bias of the keys has no gradient but rounding, which AdamW blows up
            assert distance(done, plain, batches) < 1e-5
            assert distance(student, plain, batches) > 1e-2


def test_it_claims_to_have_trained(classifier: ModelHandle) -> None:
    (claim,) = LogitDistillation().apply(supplied(perturbed(classifier), classifier, sentences())).claims
    assert claim.step == "logit-distillation"
    assert claim.is_retrained


def broken_teacher(handle: ModelHandle) -> ModelHandle:
    teacher = handle.copy()
    with torch.no_grad():
        teacher.model.classifier.bias.fill_(float("nan"))
    return teacher


def test_a_loss_that_is_not_finite_ends_the_cell(classifier: ModelHandle) -> None:
    student = supplied(perturbed(classifier), broken_teacher(classifier), sentences())
    with pytest.raises(CellError, match="the training loss became nan") as caught:
        LogitDistillation().apply(student)
    assert not isinstance(caught.value, UnsupportedError)
    assert "learning_rate" in caught.value.do


@pytest.mark.parametrize(
    "supplies",
    [
        lambda handle: Supplies(),
        lambda handle: Supplies(teacher=lambda: handle),
        lambda handle: Supplies(training_batches=lambda *_: sentences()),
    ],
)
def test_without_a_teacher_or_data_it_is_unsupported(
    classifier: ModelHandle, supplies: Callable[[ModelHandle], Supplies]
) -> None:
    with pytest.raises(UnsupportedError, match="needs a teacher and training data"):
        LogitDistillation().apply(classifier.copy(supplies(classifier)))


@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"alpha": 1.5}, {"num_epochs": 0}, {"learning_rate": 0}, {"precision": "float16"}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LogitDistillation(**options)
