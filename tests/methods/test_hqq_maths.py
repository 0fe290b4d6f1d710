from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from compressbench.methods.maths.hqq import HalfQuadratic, hqq, hqq_with_errors, shrink

NO_STEPS = HalfQuadratic(iterations=0)


def heavy_tailed(seed: int, rows: int = 24, columns: int = 128) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(4, rows, columns, generator=generator)
    return 0.02 * normal[0] / normal[1:].square().mean(dim=0).sqrt()  # Student's t with 3 degrees of freedom


def min_max_by_loop(group: list[float], bits: int, dtype: torch.dtype) -> tuple[float, float, list[float]]:
    """Scale, zero and codes of one group, rounded to what is stored."""
    scale = float(torch.tensor((max(group) - min(group)) / (2**bits - 1), dtype=torch.float64).to(dtype))
    zero = float(torch.tensor(-min(group) / scale, dtype=torch.float64).to(dtype))
    return scale, zero, [min(2**bits - 1, max(0, round(value / scale + zero))) for value in group]


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_without_iterations_it_is_min_max_rounding_with_a_floating_zero(bits: int, dtype: torch.dtype) -> None:
    weight = heavy_tailed(0, rows=6, columns=64).double()
    quantized = hqq(weight, bits=bits, group_size=16, solver=NO_STEPS, scale_dtype=dtype)
    assert quantized.zero is not None
    assert quantized.zero.dtype == quantized.scale.dtype == dtype
    for row in range(6):
        for group in range(4):
            values = weight[row, group * 16 : group * 16 + 16].tolist()
            scale, zero, codes = min_max_by_loop(values, bits, dtype)
            assert float(quantized.scale[row, group]) == scale
            assert float(quantized.zero[row, group]) == zero
            assert quantized.codes[row, group * 16 : group * 16 + 16].tolist() == codes


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_error_never_rises_and_is_that_of_the_stored_values(bits: int, seed: int) -> None:
    weight = heavy_tailed(seed)
    quantized, errors = hqq_with_errors(weight, bits=bits)
    assert all(later < earlier for earlier, later in pairwise(errors))
    start = hqq(weight, bits=bits, solver=NO_STEPS)
    for found, error in ((start, errors[0]), (quantized, errors[-1])):
        exact = (weight.double() - found.dequantize(torch.float64)).abs().pow(0.7).sum()
        assert float(exact) == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_moving_the_zeros_pays_at_few_bits(seed: int) -> None:
    for bits, gain in ((2, 0.95), (3, 0.99), (4, 0.995)):
        _, errors = hqq_with_errors(heavy_tailed(seed), bits=bits)
        assert errors[-1] < gain * errors[0]


@pytest.mark.parametrize("bits", [2, 4])
def test_every_code_is_the_nearest_for_the_stored_scale_and_zero(bits: int) -> None:
    weight = heavy_tailed(1, columns=96)
    quantized = hqq(weight, bits=bits, group_size=32)
    assert quantized.zero is not None
    scale, zero = (part.double().repeat_interleave(32, dim=1) for part in (quantized.scale, quantized.zero))
    every = torch.stack([(code - zero) * scale for code in range(2**bits)])
    nearest = (every - weight.double()).abs().amin(dim=0)
    torch.testing.assert_close((quantized.dequantize().double() - weight).abs(), nearest, rtol=0, atol=1e-7)


def search_by_loop(weight: torch.Tensor, bits: int, solver: HalfQuadratic) -> tuple[list[float], list[float]]:
    """The paper's algorithm for one group a row, number by number: the error after every step, and the zeros."""
    rows = [[float(value) for value in row] for row in weight]
    scales, zeros = zip(*(min_max_by_loop(row, bits, torch.float64)[:2] for row in rows), strict=True)
    errors: list[float] = []
    beta, best = solver.beta, list(zeros)
    for _ in range(solver.iterations + 1):
        total, following = 0.0, []
        for row, scale, zero in zip(rows, scales, zeros, strict=True):
            fitting = []
            for value in row:
                code = min(2**bits - 1, max(0, round(value / scale + zero)))
                error = value - (code - zero) * scale
                total += abs(error) ** solver.p
                outlier = np.sign(error) * max(abs(error) - abs(error) ** (solver.p - 1) / beta, 0) if error else 0
                fitting.append(code - (value - outlier) / scale)
            following.append(sum(fitting) / len(fitting))
        if errors and total >= errors[-1]:
            break
        errors.append(total)
        best, zeros, beta = list(zeros), tuple(following), beta * solver.kappa
    return errors, best


@pytest.mark.parametrize("solver", [HalfQuadratic(), HalfQuadratic(iterations=6, p=0.5, beta=2.0, kappa=1.3)])
def test_every_step_is_the_papers_by_hand(solver: HalfQuadratic) -> None:
    weight = heavy_tailed(3, rows=4, columns=32).double() * 30
    found, errors = hqq_with_errors(weight, bits=2, group_size=32, solver=solver, scale_dtype=torch.float64)
    expected, zeros = search_by_loop(weight, 2, solver)
    assert len(errors) > 4
    assert errors == pytest.approx(expected, rel=1e-9)
    assert found.zero is not None
    assert found.zero.flatten().tolist() == pytest.approx(zeros, rel=1e-9)


def test_where_every_error_counts_as_an_outlier_the_zeros_stay() -> None:
    weight = heavy_tailed(4)
    _, errors = hqq_with_errors(weight.double(), bits=3, solver=HalfQuadratic(beta=1e12), scale_dtype=torch.float64)
    assert errors[-1] == pytest.approx(errors[0], rel=1e-6)


def test_the_threshold_for_p_one_is_the_proximal_operator_of_the_absolute_value() -> None:
    grid = torch.linspace(-2, 2, 40001, dtype=torch.float64)
    for value in (-1.3, -0.1, 0.0, 0.05, 0.2, 1.7):
        best = grid[(grid.abs() + 5.0 / 2 * (grid - value).square()).argmin()]
        assert float(shrink(torch.tensor(value, dtype=torch.float64), 5.0, 1.0)) == pytest.approx(float(best), abs=1e-4)


def test_below_the_threshold_nothing_is_an_outlier_and_far_above_all_is() -> None:
    edge = 10.0 ** (-1 / 1.3)
    values = torch.tensor([0.0, edge * 0.999, -edge * 0.999, edge * 1.001, -edge * 1.001, 50.0], dtype=torch.float64)
    shrunk = shrink(values, 10.0, 0.7)
    assert shrunk[:3].tolist() == [0, 0, 0]
    assert shrunk[3:5].sign().tolist() == [1, -1]
    assert float(shrunk[5]) == pytest.approx(50, abs=0.05)


@pytest.mark.parametrize(("columns", "group_size"), [(100, 64), (96, 64), (40, 64), (70, -1)])
def test_a_shorter_last_group_is_quantized_as_if_it_stood_alone(columns: int, group_size: int) -> None:
    weight = heavy_tailed(5, columns=columns)
    size = columns if group_size == -1 else group_size
    # a single step that is always taken: the decision to stop is one for the whole matrix
    solver = HalfQuadratic(iterations=1)
    whole, errors = hqq_with_errors(weight, bits=3, group_size=group_size, solver=solver)
    parts = [hqq_with_errors(part, bits=3, group_size=-1, solver=solver) for part in torch.split(weight, size, dim=1)]
    assert len(errors) == 2
    assert all(len(part_errors) == 2 for _, part_errors in parts)
    assert whole.codes.shape == weight.shape
    torch.testing.assert_close(whole.dequantize(), torch.cat([part.dequantize() for part, _ in parts], dim=1))
    assert errors == pytest.approx(np.sum([part_errors for _, part_errors in parts], axis=0).tolist())


@pytest.mark.parametrize("value", [0.0, 1e-5, -0.3, 7.0, 4000.0])
@pytest.mark.parametrize("bits", [2, 8])
def test_a_group_of_equal_weights_keeps_its_value(value: float, bits: int) -> None:
    weight = torch.full((2, 64), value)
    assert hqq(weight, bits=bits).dequantize() == pytest.approx(weight, rel=2**-9, abs=1e-7)


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_groups_far_from_zero_lose_no_more_than_their_zero_can_hold(spread: float, bits: int) -> None:
    weight = 1 + spread * torch.rand(4, 64, generator=torch.Generator().manual_seed(0))
    step = max(spread / (2**bits - 1), 2**-11)
    found = hqq(weight, bits=bits, solver=NO_STEPS).dequantize()
    assert float((found - weight).abs().max()) < 1.01 * step


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_weights_that_are_not_finite_or_too_large_for_their_scale_are_refused(value: float) -> None:
    weight = heavy_tailed(6, rows=3, columns=64)
    weight[1, 5] = value
    with pytest.raises(ValueError, match=r"must be finite, and their scales must fit into torch\.float16"):
        hqq(weight, bits=4)


@pytest.mark.parametrize("bits", [0, 9])
def test_more_than_eight_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=r"bits must lie in 1 \.\. 8"):
        hqq(torch.ones(2, 8), bits=bits)
