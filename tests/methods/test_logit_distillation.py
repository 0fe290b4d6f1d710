from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from compressbench.core.errors import CellError, UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.methods.distillation.logit_distillation import LogitDistillation
from compressbench.methods.maths.distance import distillation_loss
from compressbench.methods.pruning.magnitude import Magnitude
from compressbench.models.handle import ModelHandle, Supplies
from compressbench.models.parts import target_linears
from compressbench.testing import tiny_causal_lm, tiny_classifier

Asked = list[tuple[int, int | None, int]]


def sharpened(handle: ModelHandle, factor: float = 4.0) -> ModelHandle:
    """Larger weights, so that the logits differ from text to text."""
    with torch.no_grad():
        for parameter in handle.model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(factor)
    return handle


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return sharpened(tiny_classifier())


@pytest.fixture(scope="module")
def causal_lm() -> ModelHandle:
    return sharpened(tiny_causal_lm(num_layers=1))


def sentences(count: int = 4, rows: int = 8, length: int = 6) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 19, (count, rows, length), generator=generator)
    labels = torch.randint(0, 3, (count, rows), generator=generator)
    return [
        {"input_ids": i, "attention_mask": torch.ones_like(i), "labels": j} for i, j in zip(ids, labels, strict=True)
    ]


def windows(count: int = 3, rows: int = 4, length: int = 8) -> list[Batch]:
    ids = torch.randint(4, 19, (count, rows, length), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": part, "attention_mask": torch.ones_like(part), "labels": part} for part in ids]


def perturbed(handle: ModelHandle, noise: float = 0.1) -> ModelHandle:
    student = handle.copy()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    return student


def supplied(
    student: ModelHandle, teacher: ModelHandle, batches: list[Batch], seed: int = 0, asked: Asked | None = None
) -> ModelHandle:
    def source(batch_size: int, max_samples: int | None, source_seed: int) -> list[Batch]:
        if asked is not None:
            asked.append((batch_size, max_samples, source_seed))
        return batches

    return student.copy(Supplies(teacher=lambda: teacher, training_batches=source, seed=seed))


def distance(student: ModelHandle, teacher: ModelHandle, batches: list[Batch], temperature: float = 2.0) -> float:
    """Mean distillation loss over the batches, without dropout."""
    total = 0.0
    for batch in batches:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        with torch.inference_mode():
            one, other = student.model.eval()(**inputs).logits, teacher.model(**inputs).logits
        classes = one.shape[-1]
        total += float(distillation_loss(one.reshape(-1, classes), other.reshape(-1, classes), temperature))
    return total / len(batches)


def weights(handle: ModelHandle) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in handle.model.state_dict().items()}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


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
    student = perturbed(classifier)
    for module in student.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    student.model.config.attention_probs_dropout_prob = 0.0
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
    told: list[tuple[str, float]] = []
    steps: list[float] = []

    class Listener:
        @contextmanager
        def bar(self, description: str, total: float) -> Iterator[Any]:
            told.append((description, total))
            yield self

        def advance(self, amount: float = 1) -> None:
            steps.append(amount)

        def say(self, line: str) -> None:
            raise AssertionError(line)

    student = supplied(perturbed(classifier), classifier, sentences())
    LogitDistillation().apply(student.copy(replace(student.supplies, progress=Listener())))
    assert told == [("distil", 4)]
    assert steps == [1] * 4


def broken_teacher(handle: ModelHandle) -> ModelHandle:
    teacher = handle.copy()
    with torch.no_grad():
        teacher.model.classifier.bias.fill_(float("nan"))
    return teacher


def test_a_loss_that_is_not_finite_ends_the_cell(classifier: ModelHandle) -> None:
    student = supplied(perturbed(classifier), broken_teacher(classifier), sentences())
    with pytest.raises(CellError, match="the distillation loss became nan") as caught:
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
