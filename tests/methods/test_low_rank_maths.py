from __future__ import annotations

import pytest
import torch

from compressbench.methods.maths.low_rank import LowRank, low_rank, rank_for


def problem(seed: int, out: int = 40, columns: int = 48, rows: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight and correlated inputs of uneven size, in float64."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, columns, generator=generator, dtype=torch.float64)
    mixing = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    sizes = torch.logspace(-1, 1, columns, dtype=torch.float64)
    return weight, torch.randn(rows, columns, generator=generator, dtype=torch.float64) * sizes @ mixing


def output_energy(weight: torch.Tensor, x: torch.Tensor, factors: LowRank) -> float:
    return float((x @ (weight - factors.left @ factors.right).T).square().sum())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shape", [(40, 48), (48, 40)])
def test_the_error_on_the_inputs_is_the_discarded_energy(seed: int, shape: tuple[int, int]) -> None:
    weight, x = problem(seed, *shape)
    for rank in (1, 10, 30):
        found = low_rank(weight, x.T @ x, rank)
        assert found.damping == 0
        assert (found.left.shape, found.right.shape) == ((shape[0], rank), (rank, shape[1]))
        assert output_energy(weight, x, found) == pytest.approx(found.discarded_energy, rel=1e-10)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_never_worse_than_the_plain_svd_on_the_inputs(seed: int) -> None:
    weight, x = problem(seed)
    for rank in (1, 5, 20, 39):
        aware, plain = low_rank(weight, x.T @ x, rank), low_rank(weight, None, rank)
        assert output_energy(weight, x, aware) < 0.9 * output_energy(weight, x, plain)
        assert (weight - aware.left @ aware.right).norm() > (weight - plain.left @ plain.right).norm()


@pytest.mark.parametrize("seed", range(3))
def test_alternating_least_squares_finds_nothing_better(seed: int) -> None:
    weight, x = problem(seed)
    gram = x.T @ x
    found = low_rank(weight, gram, 6)
    generator = torch.Generator().manual_seed(seed)
    right = torch.randn(6, 48, generator=generator, dtype=torch.float64)
    for _ in range(300):
        left = torch.linalg.solve(right @ gram @ right.T, right @ gram @ weight.T).T
        right = torch.linalg.solve(left.T @ left, left.T @ weight)
    searched = output_energy(weight, x, LowRank(left, right, 0.0, 0.0))
    assert searched >= found.discarded_energy * (1 - 1e-10)
    assert searched == pytest.approx(found.discarded_energy, rel=1e-3)


@pytest.mark.parametrize("shape", [(40, 48), (48, 40), (32, 32)])
@pytest.mark.parametrize("rows", [10, 39, 200])
def test_the_full_rank_reproduces_the_weight_however_few_inputs_there_were(shape: tuple[int, int], rows: int) -> None:
    weight, x = problem(0, *shape, rows=rows)
    for gram in (x.T @ x, None):
        found = low_rank(weight, gram, min(shape))
        torch.testing.assert_close(found.left @ found.right, weight, rtol=0, atol=1e-10)
        assert found.discarded_energy == 0


def test_without_inputs_it_is_the_plain_svd() -> None:
    weight, _ = problem(1)
    singular = torch.linalg.svdvals(weight)
    identity = torch.eye(48, dtype=torch.float64)
    for rank in (1, 17):
        plain, white = low_rank(weight, None, rank), low_rank(weight, identity, rank)
        torch.testing.assert_close(plain.left @ plain.right, white.left @ white.right)
        expected = float(singular[rank:].square().sum())
        assert plain.discarded_energy == pytest.approx(expected, rel=1e-12)
        assert float((weight - plain.left @ plain.right).square().sum()) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("rows", [1, 20, 47])
def test_fewer_inputs_than_features_are_damped_and_the_result_says_so(rows: int) -> None:
    weight, x = problem(2, rows=rows)
    found = low_rank(weight, x.T @ x, 15)
    assert found.damping == pytest.approx(1e-6 * float(x.square().sum()) / 48)
    extra = found.damping * float((weight - found.left @ found.right).square().sum())
    assert output_energy(weight, x, found) + extra == pytest.approx(found.discarded_energy, rel=1e-8)


@pytest.mark.parametrize("seed", range(20))
def test_a_singular_matrix_is_found_out_even_where_rounding_lets_it_be_factored(seed: int) -> None:
    weight, _ = problem(seed)
    x = torch.randn(47, 48, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert low_rank(weight, x.T @ x, 15).damping > 0


def test_a_dead_feature_is_damped_and_features_of_very_uneven_size_are_not() -> None:
    weight, x = problem(3)
    uneven = x * torch.logspace(-7, 2, 48, dtype=torch.float64)
    found = low_rank(weight, uneven.T @ uneven, 20)
    assert found.damping == 0
    assert output_energy(weight, uneven, found) == pytest.approx(found.discarded_energy, rel=1e-9)
    x[:, 7] = 0
    assert low_rank(weight, x.T @ x, 20).damping > 0


def test_inputs_that_span_few_directions_need_few_ranks() -> None:
    weight, x = problem(4, rows=12)
    found = low_rank(weight, x.T @ x, 12)
    assert output_energy(weight, x, found) < 1e-9 * float((x @ weight.T).square().sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_factors_have_the_weights_type_and_are_rounded_once(dtype: torch.dtype) -> None:
    weight, x = problem(5)
    rounded = weight.to(dtype)
    found, exact = low_rank(rounded, x.T @ x, 10), low_rank(rounded.double(), x.T @ x, 10)
    assert found.left.dtype == found.right.dtype == dtype
    assert torch.equal(found.left, exact.left.to(dtype))
    assert torch.equal(found.right, exact.right.to(dtype))
    assert found.discarded_energy == exact.discarded_energy


def test_the_left_factor_is_orthonormal() -> None:
    weight, x = problem(6)
    left = low_rank(weight, x.T @ x, 10).left
    torch.testing.assert_close(left.T @ left, torch.eye(10, dtype=torch.float64))


@pytest.mark.parametrize("rank", [0, -1, 41])
def test_a_rank_that_does_not_exist_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=rf"the rank must lie in 1 \.\. 40, got {rank}"):
        low_rank(torch.ones(40, 48), None, rank)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_layer_that_saw_no_usable_inputs_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=f"the inputs' mean square is {value:g}"):
        low_rank(torch.ones(4, 4), torch.full((4, 4), value), 2)


@pytest.mark.parametrize("shape", [(200, 200), (40, 48), (384, 1536), (30, 1)])
def test_the_rank_is_the_largest_that_keeps_within_the_parameters(shape: tuple[int, int]) -> None:
    out, columns = shape
    for percent in range(100):
        fits = [rank for rank in range(1, out) if 100 * rank * (out + columns) <= (100 - percent) * out * columns]
        if fits:
            assert rank_for(percent / 100, out, columns) == max(fits)
        else:
            with pytest.raises(ValueError, match=f"not even rank 1 of {out} x {columns}"):
                rank_for(percent / 100, out, columns)


def test_factors_bigger_than_the_matrix_are_refused() -> None:
    assert rank_for(0.0, 64, 64) == 32
    with pytest.raises(ValueError, match="bigger than the dense matrix"):
        rank_for(-0.01, 64, 64)
