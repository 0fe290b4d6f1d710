from __future__ import annotations

import numpy as np
import pytest
import torch

from compressbench.methods.maths.integers import per_channel_symmetric


def weights(seed: int, rows: int = 12, columns: int = 33) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = 10.0 ** torch.randint(-6, 6, (rows, 1), generator=generator).float()
    return torch.randn(rows, columns, generator=generator) * scales


@pytest.mark.parametrize("seed", range(5))
def test_codes_and_scales_agree_with_a_loop_in_double_precision(seed: int) -> None:
    weight = weights(seed)
    codes, scale = per_channel_symmetric(weight)
    for row, (row_codes, row_scale) in zip(weight.double().numpy(), zip(codes, scale, strict=True), strict=True):
        step = np.float32(max(abs(float(value)) for value in row) / 127)
        assert float(row_scale) == float(step)
        expected = [max(-127, min(127, round(float(value) / float(step)))) for value in row]
        assert row_codes.tolist() == expected
    assert codes.dtype == torch.int8
    assert scale.dtype == torch.float32


@pytest.mark.parametrize("seed", range(5))
def test_no_weight_moves_further_than_half_a_step(seed: int) -> None:
    weight = weights(seed)
    codes, scale = per_channel_symmetric(weight)
    error = (weight.double() - codes.double() * scale.double()[:, None]).abs()
    assert bool((error <= scale.double()[:, None] / 2 * (1 + 1e-6)).all())
    assert bool((error.amax(dim=1) > scale.double() / 8).all()), "codes of finer steps would be off by less"


@pytest.mark.parametrize("seed", range(5))
def test_rounding_what_was_rounded_changes_nothing(seed: int) -> None:
    codes, scale = per_channel_symmetric(weights(seed))
    again, same_scale = per_channel_symmetric(codes.double() * scale.double()[:, None])
    assert torch.equal(again, codes)
    assert torch.equal(same_scale, scale)
    in_float32, _ = per_channel_symmetric(codes.float() * scale[:, None])
    assert torch.equal(in_float32, codes)


def test_the_largest_weight_of_a_channel_is_127_and_minus_128_is_never_used() -> None:
    codes, _ = per_channel_symmetric(torch.tensor([[1.0, -1.0, 0.25], [-3.0, 2.0, 0.0], [1e-30, 2e-31, -1e-30]]))
    assert codes.tolist() == [[127, -127, 32], [-127, 85, 0], [127, 25, -127]]


@pytest.mark.parametrize("tiny", [0.0, -0.0, 1e-45])
def test_a_channel_without_a_scale_becomes_zeros(tiny: float) -> None:
    codes, scale = per_channel_symmetric(torch.tensor([[tiny, 0.0], [1.0, 0.5]]))
    assert codes[0].tolist() == [0, 0]
    assert float(scale[0]) == 1.0
    assert float(scale[1]) > 0


def test_a_weight_that_is_not_a_number_stays_visible() -> None:
    _, scale = per_channel_symmetric(torch.tensor([[float("nan"), 1.0], [1.0, 0.5]]))
    assert scale.isnan().tolist() == [True, False]


def test_a_large_channel_costs_the_others_no_precision() -> None:
    weight = weights(0)
    larger = weight.clone()
    larger[3] *= 1e6
    codes, scale = per_channel_symmetric(weight)
    codes_beside, scale_beside = per_channel_symmetric(larger)
    others = [row for row in range(len(weight)) if row != 3]
    assert torch.equal(codes_beside[others], codes[others])
    assert torch.equal(scale_beside[others], scale[others])
