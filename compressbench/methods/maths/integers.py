"""Rounding weights to integers. Pure functions on tensors."""

from __future__ import annotations

import torch


def per_channel_symmetric(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round to nearest int8 with one symmetric scale per output channel: codes (out x in, int8) and scales (out, float32).

    The scale is max|w| / 127 in float64, because a float32 division rounds differently on CPU and GPU; a channel whose
    scale would be zero keeps scale 1, and one with NaN gets the scale NaN. weight ≈ codes * scale[:, None], off by at
    most scale / 2.
    """
    exact = weight.detach().double()
    largest = exact.abs().amax(dim=1)
    scale = (largest / 127).float()
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    codes = (exact / scale.double()[:, None]).round().clamp(-127, 127)
    return codes.to(torch.int8), scale
