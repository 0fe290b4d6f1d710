from __future__ import annotations

import math

import pytest
import torch

from compressbench.methods.maths.distance import (
    attention_divergence,
    distillation_loss,
    generalized_jsd,
    hidden_state_loss,
)


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


def slope_over_limit(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """c of T² KL = limit * (1 + c / T + O(1 / T²)).

    KL(softmax(t/T) ‖ softmax(s/T)) is the cumulant generating function of d = s - t under softmax(t/T), less its first
    term: κ2 / 2T² + κ3 / 6T³ + ..., and softmax(t/T) is uniform but for (t - mean t) / T.
    """
    d = student - student.mean(dim=1, keepdim=True) - teacher + teacher.mean(dim=1, keepdim=True)
    t = teacher - teacher.mean(dim=1, keepdim=True)
    slope = ((t * d**2).mean(dim=1) / 2 + (d**3).mean(dim=1) / 6).mean()
    return float(slope) / variance_form(student, teacher)


def test_the_way_to_the_limit_is_the_one_of_the_expansion() -> None:
    # T² KL depends on logits / T alone: scaled logits have any slope, and with -0.04 the ratios are the published ones;
    # the more skewed they are, the smaller the factor and with it the next term
    student, teacher = logits(3) ** 2, logits(4) ** 2
    factor = -0.04 / slope_over_limit(student, teacher)
    student, teacher = factor * student, factor * teacher
    assert slope_over_limit(student, teacher) == pytest.approx(-0.04)
    limit = variance_form(student, teacher)
    ratios = [float(distillation_loss(student, teacher, t)) / limit for t in (10.0, 100.0, 1000.0)]
    assert ratios == pytest.approx([0.996, 0.9996, 0.99996], abs=5e-5)
    assert abs(ratios[1] - 1) <= 4e-4
    leftover = [abs(ratio - 1 + 0.04 / t) for ratio, t in zip(ratios, (10.0, 100.0, 1000.0), strict=True)]
    assert leftover[0] / leftover[1] == pytest.approx(100, rel=0.2)


def test_where_no_logit_is_skewed_the_limit_is_near_already_at_a_hundred() -> None:
    # every class has a mirror image, so that all third moments and with them the slope vanish: the gap falls as 1 / T²
    student, teacher = (torch.cat([each, -each], dim=1) for each in (logits(3), logits(4)))
    limit = variance_form(student, teacher)
    assert slope_over_limit(student, teacher) == pytest.approx(0, abs=1e-15)
    gaps = [abs(1 - float(distillation_loss(student, teacher, t)) / limit) for t in (10.0, 100.0)]
    assert gaps[1] < 2e-4
    assert gaps[0] / gaps[1] == pytest.approx(100, rel=0.05)


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


def jsd_by_hand(student: torch.Tensor, teacher: torch.Tensor, beta: float, temperature: float) -> float:
    total = 0.0
    for p, q in zip((teacher / temperature).softmax(dim=1), (student / temperature).softmax(dim=1), strict=True):
        for one, other in zip(p.tolist(), q.tolist(), strict=True):
            middle = beta * one + (1 - beta) * other
            total += beta * one * math.log(one / middle) + (1 - beta) * other * math.log(other / middle)
    return total / len(student)


@pytest.mark.parametrize("beta", [0.01, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_the_generalized_divergence_is_the_papers_sum(beta: float, temperature: float) -> None:
    student, teacher = 2 * logits(11), 2 * logits(12)
    found = float(generalized_jsd(student, teacher, beta=beta, temperature=temperature))
    assert found == pytest.approx(jsd_by_hand(student, teacher, beta, temperature), rel=1e-10)
    swapped = float(generalized_jsd(teacher, student, beta=1 - beta, temperature=temperature))
    assert swapped == pytest.approx(found, rel=1e-10)
    if beta != 0.5:
        other_way = float(generalized_jsd(teacher, student, beta=beta, temperature=temperature))
        assert other_way != pytest.approx(found, rel=1e-3), "only beta = 0.5 is symmetric"


def test_at_its_ends_the_generalized_divergence_is_one_kl_or_the_other() -> None:
    student, teacher = 2 * logits(13), 2 * logits(14)
    forward, reverse = by_hand(student, teacher, 1.0), by_hand(teacher, student, 1.0)
    assert forward != pytest.approx(reverse, rel=1e-2)
    assert float(generalized_jsd(student, teacher, beta=0.0)) == pytest.approx(forward, rel=1e-12)
    assert float(generalized_jsd(student, teacher, beta=1.0)) == pytest.approx(reverse, rel=1e-12)
    for small in (1e-3, 1e-5):  # the expression itself tends to beta * KL and (1 - beta) * KL
        at_start = float(generalized_jsd(student, teacher, beta=small)) / small
        at_end = float(generalized_jsd(student, teacher, beta=1 - small)) / small
        assert at_start == pytest.approx(forward, rel=20 * small)
        assert at_end == pytest.approx(reverse, rel=20 * small)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.8])
def test_the_generalized_divergence_is_bounded_by_the_entropy_of_beta(beta: float) -> None:
    bound = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
    for seed in range(5):
        assert 0 < float(generalized_jsd(9 * logits(seed), 9 * logits(seed + 9), beta=beta)) < bound
    apart = torch.tensor([[500.0, 0.0]]), torch.tensor([[0.0, 500.0]])
    assert float(generalized_jsd(*apart, beta=beta)) == pytest.approx(bound, rel=1e-6)
    if beta == 0.5:
        assert bound == pytest.approx(math.log(2))


@pytest.mark.parametrize("beta", [0.0, 0.2, 0.5, 1.0])
def test_equal_models_do_not_diverge(beta: float) -> None:
    teacher = logits(15)
    student = (teacher - 3.0).requires_grad_(True)
    loss = generalized_jsd(student, teacher, beta=beta, temperature=0.9)
    torch.autograd.backward(loss)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-14)
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-14
    assert float(generalized_jsd(teacher.bfloat16(), teacher.bfloat16(), beta=beta)) == pytest.approx(0, abs=1e-6)


def states(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


COUNTED = torch.tensor([[True, True, True, True], [True, True, False, False], [True, False, False, False]])


def test_hidden_states_are_compared_where_there_are_tokens() -> None:
    student, teacher = states(0, 3, 4, 5), states(1, 3, 4, 5)
    errors = [
        (float(student[row, at, unit]) - float(teacher[row, at, unit])) ** 2
        for row in range(3)
        for at in range(4)
        if COUNTED[row, at]
        for unit in range(5)
    ]
    expected = sum(errors) / len(errors)
    assert float(hidden_state_loss(student, teacher, COUNTED)) == pytest.approx(expected, rel=1e-6)
    student[~COUNTED] = 1e6
    assert float(hidden_state_loss(student, teacher, COUNTED)) == pytest.approx(expected, rel=1e-6)
    assert float(hidden_state_loss(teacher, teacher, COUNTED)) == 0.0


def attention(seed: int) -> torch.Tensor:
    """Probabilities (3 x 2 x 4 x 4) over the keys that are no padding."""
    scores = 2 * states(seed, 3, 2, 4, 4)
    return scores.masked_fill(~COUNTED[:, None, None, :], -torch.inf).softmax(dim=-1)


def test_attention_is_compared_by_its_divergence_per_head_and_token() -> None:
    student, teacher = attention(2), attention(3)
    rows = [
        sum(
            p * math.log(p / q)
            for p, q in zip(teacher[row, head, at].tolist(), student[row, head, at].tolist(), strict=True)
            if p > 0
        )
        for row in range(3)
        for head in range(2)
        for at in range(4)
        if COUNTED[row, at]
    ]
    expected = sum(rows) / len(rows)
    assert float(attention_divergence(student, teacher, COUNTED)) == pytest.approx(expected, rel=1e-5)
    student.transpose(1, 2)[~COUNTED] = 0.25
    assert float(attention_divergence(student, teacher, COUNTED)) == pytest.approx(expected, rel=1e-5)
    assert float(attention_divergence(teacher, teacher, COUNTED)) == 0.0


def test_a_key_that_the_student_leaves_out_costs_much_and_breaks_nothing() -> None:
    teacher = torch.full((1, 1, 1, 2), 0.5)
    student = torch.tensor([[[[1.0, 0.0]]]], requires_grad=True)
    loss = attention_divergence(student, teacher, torch.tensor([[True]]))
    torch.autograd.backward(loss)
    assert 10 < float(loss.detach()) < 100
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())
