from __future__ import annotations

import pytest
import torch
from layerwise_reference import correlated_layer

from compressbench.methods.maths.masks import keep_largest, keep_largest_per_row, keep_n_of_m
from compressbench.methods.maths.wanda import ColumnNorms, wanda_scores
from compressbench.models.allocations import trace_allocations


def norms_of(inputs: torch.Tensor) -> torch.Tensor:
    accumulator = ColumnNorms(inputs.shape[1])
    accumulator.add(inputs)
    return accumulator.norms()


def test_norms_of_batches_are_those_of_all_inputs() -> None:
    inputs = correlated_layer(0, (1, 30), 700).inputs
    accumulator = ColumnNorms(30)
    for part in torch.split(inputs, 333):
        accumulator.add(part)
    assert accumulator.num_rows == 700
    torch.testing.assert_close(accumulator.norms(), torch.linalg.vector_norm(inputs, dim=0), rtol=1e-14, atol=0)


def test_norms_of_half_precision_inputs_neither_overflow_nor_round() -> None:
    inputs = torch.full((3000, 2), 300.0, dtype=torch.float16)
    assert norms_of(inputs).tolist() == [300 * 3000**0.5] * 2
    small = torch.full((1, 1), 2.0**-24, dtype=torch.float16)
    assert norms_of(small).tolist() == [2.0**-24]


def test_norms_without_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="no calibration input"):
        ColumnNorms(3).norms()


def test_adding_inputs_takes_no_copy_of_them_in_double_precision() -> None:
    inputs, accumulator = torch.ones(8192, 64), ColumnNorms(64)
    peak = trace_allocations(lambda: accumulator.add(inputs), "cpu").peak_bytes
    assert peak < inputs.numel() * 4 / 4


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.7])
def test_the_mask_is_that_of_a_loop_over_every_row(sparsity: float) -> None:
    layer = correlated_layer(1, (10, 40), spread=1.0)
    mask = keep_largest_per_row(wanda_scores(layer.weight, norms_of(layer.inputs)), sparsity)
    lengths = [sum(float(value) ** 2 for value in column) ** 0.5 for column in layer.inputs.t()]
    for row, row_mask in zip(layer.weight.tolist(), mask.tolist(), strict=True):
        scores = [abs(value) * length for value, length in zip(row, lengths, strict=True)]
        gone = sorted(range(40), key=lambda column: scores[column])[: int(sparsity * 40)]
        assert [column for column in range(40) if not row_mask[column]] == sorted(gone)


def test_with_inputs_of_unit_norm_it_is_magnitude_per_row_and_not_per_layer() -> None:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(16, 64, generator=generator) * torch.linspace(0.2, 2, 16)[:, None]
    signs = torch.randint(0, 2, (4, 64), generator=generator) * 2.0 - 1
    scores = wanda_scores(weight, norms_of(signs / 2))
    assert torch.equal(scores, weight.abs())
    mask = keep_largest_per_row(scores, 0.5)
    assert torch.equal(mask, keep_largest_per_row(weight.abs(), 0.5))
    assert not torch.equal(mask, keep_largest(weight.abs(), 0.5))
    assert (~mask).sum(dim=1).tolist() == [32] * 16


def test_two_of_every_four_neighbours_go_and_a_common_factor_of_the_norms_changes_nothing() -> None:
    layer = correlated_layer(3, (12, 48), spread=1.0)
    norms = norms_of(layer.inputs)
    mask = keep_n_of_m(wanda_scores(layer.weight, norms), 2, 4)
    assert bool((mask.reshape(-1, 4).sum(dim=1) == 2).all())
    assert torch.equal(mask, keep_n_of_m(wanda_scores(layer.weight, norms * 1000), 2, 4))
    assert not torch.equal(mask, keep_n_of_m(layer.weight.abs(), 2, 4))


def test_inputs_that_are_always_zero_cost_nothing_and_their_weights_go_first() -> None:
    layer = correlated_layer(4, (12, 48))
    layer.inputs[:, :24] = 0
    mask = keep_largest_per_row(wanda_scores(layer.weight, norms_of(layer.inputs)), 0.5)
    assert mask.tolist() == [[False] * 24 + [True] * 24] * 12


def test_scores_of_half_precision_weights_are_single_and_norms_must_be_finite() -> None:
    weight = torch.full((2, 3), 60000.0, dtype=torch.float16)
    scores = wanda_scores(weight, torch.full((3,), 1e3, dtype=torch.float64))
    assert scores.dtype == torch.float32
    assert bool(torch.isfinite(scores).all())
    with pytest.raises(ValueError, match="norm is NaN or infinite"):
        wanda_scores(weight, torch.tensor([1.0, float("nan"), 2.0]))
