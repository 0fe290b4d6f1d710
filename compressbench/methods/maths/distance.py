"""How far a student is from its teacher: in its logits, its hidden states, and where it attends to."""

from __future__ import annotations

import torch
from torch.nn import functional


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), averaged over rows, for logits (rows x classes).

    Hinton, Vinyals & Dean 2015, arXiv:1503.02531. T² keeps the gradient's size; for T → ∞ the value tends to the
    variance over classes of (student - teacher), halved. Computed in float32, or in float64 if that is given.
    """
    log_p, log_q = _log_softmax(student, temperature), _log_softmax(teacher, temperature)
    return functional.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * temperature**2


def generalized_jsd(
    student: torch.Tensor, teacher: torch.Tensor, *, beta: float, temperature: float = 1.0
) -> torch.Tensor:
    """β · KL(P ‖ M) + (1 - β) · KL(Q ‖ M) with M = β P + (1 - β) Q, averaged over rows, for logits (rows x classes).

    P is the teacher's softmax at that temperature, Q the student's; Agarwal et al. 2024, arXiv:2306.13649, eq. (1). The
    expression tends to 0 at both ends, as β KL(P ‖ Q) and (1 - β) KL(Q ‖ P); so β = 0 stands for the forward KL(P ‖ Q)
    and β = 1 for the reverse KL(Q ‖ P) themselves, as in TRL. At β = 0.5 it is symmetric and at most ln 2. There is no
    factor T². Computed in float32, or in float64 if that is given.
    """
    log_q, log_p = _log_softmax(student, temperature), _log_softmax(teacher, temperature)
    if beta in (0.0, 1.0):
        goal, other = (log_p, log_q) if beta == 0.0 else (log_q, log_p)
        return functional.kl_div(other, goal, reduction="batchmean", log_target=True)
    weight = torch.tensor(beta, dtype=log_p.dtype, device=log_p.device)
    log_m = torch.logaddexp(log_p + weight.log(), log_q + torch.log1p(-weight))
    to_teacher = functional.kl_div(log_m, log_p, reduction="batchmean", log_target=True)
    to_student = functional.kl_div(log_m, log_q, reduction="batchmean", log_target=True)
    return beta * to_teacher + (1 - beta) * to_student


def hidden_state_loss(student: torch.Tensor, teacher: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Mean squared error between hidden states (batch x length x width) over the tokens where `counted` (batch x length)
    is True. Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, eq. (8).
    """
    return (student[counted].float() - teacher[counted].float()).square().mean()


def attention_divergence(student: torch.Tensor, teacher: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """KL(teacher ‖ student) of attention probabilities (batch x heads x queries x keys), averaged over heads and over
    the queries where `counted` (batch x queries) is True. Wang et al. 2020 (MiniLM), arXiv:2002.10957, eq. (4).

    Keys that the teacher leaves out (probability 0) add nothing; a student's 0 counts as the smallest float32.
    """
    p = teacher.float().transpose(1, 2)[counted]
    q = student.float().transpose(1, 2)[counted]
    least = torch.finfo(torch.float32).tiny
    return (p * (p.clamp_min(least).log() - q.clamp_min(least).log())).sum(dim=-1).mean()


def _log_softmax(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    precise = torch.promote_types(logits.dtype, torch.float32)
    return functional.log_softmax(logits.to(precise) / temperature, dim=-1)
