from __future__ import annotations

from typing import Any

import pytest
import torch
from layerwise_reference import Layer, correlated_layer, one_column_at_a_time, pivots, quadratic_loss

from compressbench.methods.maths.masks import keep_largest, keep_n_of_m
from compressbench.methods.maths.sparsegpt import SparseGptOptions, SparseResult, sparsegpt

TWO_OF_FOUR = {"num_zeros": 2, "group": 4}
PATTERNS: list[dict[str, Any]] = [{"sparsity": 0.5}, {"sparsity": 0.3}, TWO_OF_FOUR, {"num_zeros": 1, "group": 6}]


def pruned(layer: Layer, **options: Any) -> SparseResult:
    return sparsegpt(layer.weight, layer.hessian(), SparseGptOptions(**options))


def by_hand(layer: Layer, options: SparseGptOptions, damp: float) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Weight, mask and loss, one column at a time; unstructured masks with all counts in one block."""
    damped = layer.hessian() + damp * torch.eye(layer.weight.shape[1], dtype=torch.float64)
    squares = pivots(damped)
    width = options.group or options.block_size
    mask = torch.ones_like(layer.weight, dtype=torch.bool)

    def settle(index: int, current: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        if index % width == 0:
            part = slice(index, index + width)
            scores = current[:, part].square() / squares[part]
            if options.sparsity is None:
                mask[:, part] = keep_n_of_m(scores, options.num_zeros, options.group)
            else:
                mask[:, part] = keep_largest(scores, options.sparsity)
        return current[:, index] * mask[:, index]

    weight, loss = one_column_at_a_time(layer.weight, damped, settle)
    return weight, mask, loss


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("block_size", [6, 8, 24])
def test_agrees_with_one_column_at_a_time_and_an_inverse_from_scratch(pattern: dict[str, Any], block_size: int) -> None:
    layer, options = correlated_layer(1, (10, 24), 100), SparseGptOptions(block_size=block_size, **pattern)
    result = sparsegpt(layer.weight, layer.hessian(), options)
    weight, mask, loss = by_hand(layer, options, result.damp)
    assert torch.equal(result.mask, mask)
    torch.testing.assert_close(result.weight, weight, rtol=1e-9, atol=1e-12)
    assert result.loss == pytest.approx(loss, rel=1e-10)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("block_size", [7, 16, 128])
def test_the_loss_is_the_quadratic_form_of_the_change(pattern: dict[str, Any], block_size: int) -> None:
    layer = correlated_layer(2, (12, 48))
    result = pruned(layer, block_size=block_size, **pattern)
    expected = quadratic_loss(result.weight - layer.weight, layer.hessian(), result.damp)
    assert result.loss == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shape", [(32, 96), (7, 50), (1, 13)])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.29, 0.5, 0.7])
@pytest.mark.parametrize("block_size", [1, 16, 128])
def test_exactly_the_floor_of_the_fraction_goes(shape: tuple[int, int], sparsity: float, block_size: int) -> None:
    layer = correlated_layer(3, shape, 100)
    result = pruned(layer, sparsity=sparsity, block_size=block_size)
    zeros = round(sparsity * 100) * layer.weight.numel() // 100
    assert int((~result.mask).sum()) == zeros
    assert torch.equal(result.weight == 0, ~result.mask)


@pytest.mark.parametrize(("num_zeros", "group"), [(2, 4), (4, 8), (1, 4), (3, 4), (5, 16)])
@pytest.mark.parametrize("block_size", [1, 6, 128])
def test_every_aligned_group_has_exactly_its_zeros(num_zeros: int, group: int, block_size: int) -> None:
    result = pruned(correlated_layer(4, (20, 96)), num_zeros=num_zeros, group=group, block_size=block_size)
    zeros = (result.weight == 0).reshape(20, 96 // group, group).sum(dim=2)
    assert bool((zeros == num_zeros).all())
    assert torch.equal(result.weight == 0, ~result.mask)


@pytest.mark.parametrize("pattern", [TWO_OF_FOUR, {"num_zeros": 1, "group": 6}])
def test_the_block_size_changes_nothing_about_groups(pattern: dict[str, Any]) -> None:
    layer = correlated_layer(5, (16, 96))
    whole = pruned(layer, block_size=96, **pattern)
    for block_size in (1, 4, 7, 30, 128):
        result = pruned(layer, block_size=block_size, **pattern)
        assert torch.equal(result.mask, whole.mask)
        torch.testing.assert_close(result.weight, whole.weight, rtol=1e-10, atol=1e-12)


def test_groups_are_chosen_with_weights_as_they_are_by_then() -> None:
    layer = correlated_layer(6)
    result = pruned(layer, **TWO_OF_FOUR)
    damped = layer.hessian() + result.damp * torch.eye(96, dtype=torch.float64)
    stale = keep_n_of_m(layer.weight.square() / pivots(damped), 2, 4)
    assert torch.equal(result.mask[:, :4], stale[:, :4])
    assert 0.5 < float((result.mask == stale).double().mean()) < 0.95


@pytest.mark.parametrize("pattern", PATTERNS)
def test_with_a_diagonal_hessian_the_mask_is_that_of_weight_times_input_and_no_weight_moves(
    pattern: dict[str, Any],
) -> None:
    layer = correlated_layer(7)
    energies = 10 ** torch.randn(96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    options = SparseGptOptions(block_size=96, damp_percent=0, **pattern)
    result = sparsegpt(layer.weight, torch.diag(energies), options)
    scores = layer.weight.abs() * energies.sqrt()
    expected = keep_n_of_m(scores, options.num_zeros, options.group) if options.group else None
    assert torch.equal(result.mask, keep_largest(scores, pattern["sparsity"]) if expected is None else expected)
    assert torch.equal(result.weight, layer.weight * result.mask)


def test_weights_of_dead_inputs_go_first_and_the_weight_given_is_left_alone() -> None:
    layer = correlated_layer(8)
    layer.inputs[:, [5, 6, 7]] = 0
    before = layer.weight.clone()
    for pattern in ({"sparsity": 0.5}, TWO_OF_FOUR):
        result = pruned(layer, **pattern)
        assert not bool(result.weight[:, [5, 6, 7]].any())
        assert int((~result.mask).sum()) == layer.weight.numel() // 2
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fewer_inputs_than_columns_work_in_single_precision_and_the_type_is_kept(dtype: torch.dtype) -> None:
    layer = correlated_layer(9, num_inputs=24)
    result = sparsegpt(layer.weight.to(dtype), layer.hessian(torch.float32), SparseGptOptions(sparsity=0.5))
    assert result.weight.dtype == dtype
    assert int((result.weight == 0).sum()) == layer.weight.numel() // 2
    expected = quadratic_loss(result.weight.double() - layer.weight.to(dtype).double(), layer.hessian(), result.damp)
    assert result.loss == pytest.approx(expected, rel=1e-3 if dtype == torch.float32 else 0.05)


def test_a_failing_decomposition_and_columns_that_make_no_groups_are_refused() -> None:
    layer = correlated_layer(10, (4, 18))
    with pytest.raises(ValueError, match="Cholesky decomposition of the 18 x 18 Hessian fails"):
        sparsegpt(layer.weight, -layer.hessian(), SparseGptOptions(sparsity=0.5))
    with pytest.raises(ValueError, match="18 columns are not a multiple of 4"):
        pruned(layer, **TWO_OF_FOUR)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "give sparsity, or num_zeros and group"),
        ({"sparsity": 0.5, "num_zeros": 2, "group": 4}, "and not both"),
        ({"sparsity": 1.0}, r"sparsity must lie in \[0, 1\), got 1.0"),
        ({"sparsity": -0.1}, r"sparsity must lie in \[0, 1\)"),
        ({"sparsity": float("nan")}, r"sparsity must lie in \[0, 1\)"),
        ({"num_zeros": 4, "group": 4}, "num_zeros must lie between 1 and group - 1, got 4 of 4"),
        ({"group": 4}, "got 0 of 4"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SparseGptOptions(**options)


@pytest.mark.parametrize("options", [SparseGptOptions(0.5), SparseGptOptions(num_zeros=2, group=4)])
@pytest.mark.parametrize("by_column", [False, True])
def test_work_in_place_gives_the_same_weight(options: SparseGptOptions, by_column: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, rows = torch.randn(12, 32, generator=generator), torch.randn(80, 32, generator=generator)
    hessian = 2 / 80 * rows.T @ rows
    expected = sparsegpt(weight, hessian.clone(), options).weight
    lent = weight.t().contiguous().t() if by_column else weight.clone()
    found = sparsegpt(lent, hessian, options, in_place=True)
    assert found.weight is lent
    assert torch.equal(lent, expected)
