from __future__ import annotations

import math

import pytest
import torch

from compressbench.methods.maths.distance import distillation_loss


def logits(seed: int, rows: int = 5, classes: int = 11) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    total = 0.0
    for one, other in zip(student.tolist(), teacher.tolist(), strict=True):
        of_student = [math.exp(value / temperature) for value in one]
        of_teacher = [math.exp(value / temperature) for value in other]
        for p, q in zip(of_teacher, of_student, strict=True):
            p, q = p / sum(of_teacher), q / sum(of_student)
            total += p * math.log(p / q)
    return temperature**2 * total / len(student)


def variance_form(student: torch.Tensor, teacher: torch.Tensor) -> float:
    return float((student - teacher).var(dim=1, unbiased=False).mean() / 2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 7.0])
def test_the_loss_is_squared_temperature_times_the_divergence_per_row(temperature: float) -> None:
    student, teacher = 3 * logits(0), 3 * logits(1)
    expected = by_hand(student, teacher, temperature)
    assert float(distillation_loss(student, teacher, temperature)) == pytest.approx(expected, rel=1e-12)
    single = distillation_loss(student.float(), teacher.float(), temperature)
    assert float(single) == pytest.approx(expected, rel=1e-5)
    assert by_hand(teacher, student, temperature) != pytest.approx(expected, rel=1e-2), "the order must matter"


def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient() -> None:
    teacher = logits(2)
    student = (teacher + 5.0).requires_grad_(True)  # a constant added to all classes changes no probability
    loss = distillation_loss(student, teacher, 2.0)
    torch.autograd.backward(loss)
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-14)
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-14


def test_at_high_temperature_the_loss_is_half_the_variance_of_the_difference() -> None:
    student, teacher = logits(3), logits(4)
    limit = variance_form(student, teacher)
    gaps = [abs(1 - float(distillation_loss(student, teacher, t)) / limit) for t in (10.0, 100.0, 1000.0)]
    assert all(gap < bound for gap, bound in zip(gaps, (0.05, 0.005, 0.0005), strict=True))
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.3)
    assert gaps[1] / gaps[2] == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize(("temperature", "tolerance"), [(10.0, 0.15), (100.0, 0.015), (1000.0, 0.0015)])
def test_the_gradient_keeps_its_size_at_every_temperature(temperature: float, tolerance: float) -> None:
    student, teacher = logits(5).requires_grad_(True), logits(6)
    torch.autograd.backward(distillation_loss(student, teacher, temperature))
    difference = (student - teacher).detach()
    rows, classes = difference.shape
    expected = (difference - difference.mean(dim=1, keepdim=True)) / (rows * classes)
    assert student.grad is not None
    assert float((student.grad - expected).norm() / expected.norm()) < tolerance


def test_the_loss_is_a_mean_over_rows_and_a_sum_over_classes() -> None:
    student, teacher = logits(7), logits(8)
    once = float(distillation_loss(student, teacher, 2.0))
    twice = float(distillation_loss(student.repeat(2, 1), teacher.repeat(2, 1), 2.0))
    assert twice == pytest.approx(once, rel=1e-12)
    rows = [float(distillation_loss(student[i : i + 1], teacher[i : i + 1], 2.0)) for i in range(len(student))]
    assert once == pytest.approx(sum(rows) / len(rows), rel=1e-12)


def test_half_precision_logits_are_compared_in_single_precision() -> None:
    student, teacher = logits(9).bfloat16(), logits(10).bfloat16()
    loss = distillation_loss(student, teacher, 2.0)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(by_hand(student.double(), teacher.double(), 2.0), rel=1e-5)
