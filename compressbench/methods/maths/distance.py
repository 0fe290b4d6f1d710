"""How far a student is from its teacher."""

from __future__ import annotations

import torch
from torch.nn import functional


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), averaged over rows, for logits (rows x classes).

    Hinton, Vinyals & Dean 2015, arXiv:1503.02531. T² keeps the gradient's size; for T → ∞ the value tends to the
    variance over classes of (student - teacher), halved. Computed in float32, or in float64 if that is given.
    """
    precise = torch.promote_types(student.dtype, torch.float32)
    log_p = functional.log_softmax(student.to(precise) / temperature, dim=-1)
    log_q = functional.log_softmax(teacher.to(precise) / temperature, dim=-1)
    return functional.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * temperature**2
