from __future__ import annotations

import re

import pytest
import torch
from layerwise_reference import correlated_layer

from compressbench.methods.maths.inverse_hessian import Hessian, InverseFactor, inverse_factor
from compressbench.models.allocations import trace_allocations

SIZES = (1, 5, 128, 129, 300)


def hessian(size: int, seed: int = 0, num_inputs: int = 600) -> torch.Tensor:
    return correlated_layer(seed, (1, size), num_inputs).hessian()


def damped(matrix: torch.Tensor, factor: InverseFactor) -> torch.Tensor:
    return matrix + factor.damp * torch.eye(len(matrix), dtype=matrix.dtype)


def distance_from_identity(matrix: torch.Tensor) -> float:
    return float((matrix - torch.eye(len(matrix), dtype=matrix.dtype)).abs().max())


def with_negative_eigenvalue(size: int, relative: float) -> torch.Tensor:
    """Symmetric, diagonal near 1, one eigenvalue at -relative times the mean diagonal, in the direction of all columns."""
    generator = torch.Generator().manual_seed(size)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    values = torch.linspace(0.5, 1.5, size, dtype=torch.float64)
    values[0] = 0
    values /= values.mean() * (1 + relative / size)
    values[0] = -relative
    matrix: torch.Tensor = (basis * values) @ basis.t()
    return (matrix + matrix.t()) / 2


def test_batches_add_up_to_the_mean_over_all_inputs() -> None:
    rows = correlated_layer(0, (1, 24), 100).inputs
    accumulator = Hessian(24, torch.float64)
    for part in rows.split([1, 40, 7, 52]):  # type: ignore[no-untyped-call]
        accumulator.add(part)
    assert accumulator.num_rows == 100
    torch.testing.assert_close(accumulator.take(), 2 / 100 * rows.t() @ rows, rtol=1e-13, atol=1e-14)


def test_inputs_of_half_precision_are_added_up_in_single_precision() -> None:
    rows = correlated_layer(1, (1, 16), 4000).inputs.to(torch.bfloat16)
    accumulator = Hessian(16)
    for part in torch.split(rows, 100):
        accumulator.add(part)
    exact = 2 / 4000 * rows.double().t() @ rows.double()
    torch.testing.assert_close(accumulator.take().double(), exact, rtol=1e-4, atol=1e-7)


def test_a_hessian_is_taken_once_and_not_without_inputs() -> None:
    accumulator = Hessian(4)
    with pytest.raises(ValueError, match="no calibration input"):
        accumulator.take()
    accumulator.add(torch.ones(3, 4))
    assert accumulator.take().tolist() == [[2.0] * 4] * 4
    with pytest.raises(ValueError, match="no calibration input"):
        accumulator.take()


@pytest.mark.parametrize("size", SIZES)
def test_the_factor_is_upper_triangular_and_multiplies_to_the_inverse(size: int) -> None:
    matrix = hessian(size)
    factor = inverse_factor(matrix.clone(), 0.01, 0.0)
    assert factor.damp == pytest.approx(0.01 * float(matrix.diagonal().mean()), rel=1e-14)
    upper = factor.matrix
    assert torch.equal(upper, upper.triu())
    assert bool((upper.diagonal() > 0).all())
    assert distance_from_identity(upper.t() @ upper @ damped(matrix, factor)) < 1e-10
    peer = torch.linalg.cholesky(torch.linalg.inv(damped(matrix, factor)), upper=True)
    torch.testing.assert_close(upper, peer, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_columns_in_another_order_give_the_factor_of_the_permuted_matrix(size: int) -> None:
    matrix = hessian(size)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(size))
    found = inverse_factor(matrix.clone(), 0.01, 0.0, order).matrix
    expected = inverse_factor(matrix[order][:, order], 0.01, 0.0).matrix
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_diagonal_matrix_keeps_exact_zeros_off_the_diagonal() -> None:
    diagonal = torch.rand(300, generator=torch.Generator().manual_seed(0)) + 0.1
    factor = inverse_factor(torch.diag(diagonal), 0.0, 0.0).matrix
    assert torch.equal(factor, torch.diag(factor.diagonal()))
    torch.testing.assert_close(factor.diagonal(), diagonal.rsqrt())


def test_fewer_inputs_than_columns_work_through_the_damping() -> None:
    matrix = hessian(200, num_inputs=20)
    assert int(torch.linalg.matrix_rank(matrix)) == 20
    factor = inverse_factor(matrix.clone(), 0.01, 0.0)
    assert distance_from_identity(factor.matrix.t() @ factor.matrix @ damped(matrix, factor)) < 1e-9
    single = inverse_factor(matrix.float(), 0.01, 0.0)
    product = single.matrix.double().t() @ single.matrix.double() @ damped(matrix, single)
    assert distance_from_identity(product) < 1e-2


def test_dead_columns_get_a_diagonal_of_one_and_leave_the_damping_alone() -> None:
    matrix = hessian(40)
    dead = torch.zeros(40, dtype=torch.bool)
    dead[[3, 39]] = True
    matrix[dead], matrix[:, dead] = 0, 0
    factor = inverse_factor(matrix.clone(), 0.01, 0.0)
    assert torch.equal(factor.dead, dead)
    assert factor.damp == pytest.approx(0.01 * float(matrix.diagonal()[~dead].mean()))
    matrix.diagonal()[dead] = 1
    assert distance_from_identity(factor.matrix.t() @ factor.matrix @ damped(matrix, factor)) < 1e-12
    alone = inverse_factor(torch.zeros(3, 3), 0.01, 0.0)
    assert alone.dead.all()
    torch.testing.assert_close(alone.matrix, torch.eye(3) / 1.01**0.5)


@pytest.mark.parametrize("size", [5, 129, 300])
def test_damping_grows_until_the_decomposition_works_and_what_failed_leaves_no_trace(size: int) -> None:
    matrix = with_negative_eigenvalue(size, 0.05)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
    factor = inverse_factor(matrix.clone(), 0.01, 0.0125, order)
    # 0.01, 0.0225, 0.035 and 0.0475 leave a negative eigenvalue
    assert factor.damp_percent == pytest.approx(0.06)
    assert factor.damp == pytest.approx(0.06 * float(matrix.diagonal().mean()))
    wanted = damped(matrix, factor)[order][:, order]
    assert distance_from_identity(factor.matrix.t() @ factor.matrix @ wanted) < 1e-9


def test_a_matrix_that_no_damping_helps_is_refused_with_the_numbers() -> None:
    matrix = with_negative_eigenvalue(20, 3.0)
    message = "of the 20 x 20 Hessian fails with a damping of 0.01 to 0.91 of its mean diagonal"
    with pytest.raises(ValueError, match=re.escape(message)):
        inverse_factor(matrix.clone(), 0.01, 0.1)
    with pytest.raises(ValueError, match=re.escape("fails with a damping of 0.01 to 0.01 of")):
        inverse_factor(matrix.clone(), 0.01, 0.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_matrix_that_is_not_finite_is_refused(bad: float) -> None:
    matrix = hessian(10)
    matrix[3, 4] = bad
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        inverse_factor(matrix, 0.01, 0.1)


def test_half_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be float32 or float64, got torch\.float16"):
        inverse_factor(torch.eye(3).half(), 0.01, 0.1)


def test_everything_happens_in_the_memory_of_the_hessian() -> None:
    matrix = torch.eye(1024) + 0.1
    address, order = matrix.data_ptr(), torch.arange(1023, -1, -1)
    factors: list[InverseFactor] = []
    allocated = trace_allocations(lambda: factors.append(inverse_factor(matrix, 0.01, 0.0025, order)), "cpu")
    assert factors[0].matrix.data_ptr() == address
    # panels of 128 columns: an eighth of the matrix each
    assert allocated.peak_bytes < 0.45 * matrix.numel() * 4


def test_adding_inputs_takes_no_second_matrix() -> None:
    accumulator, rows = Hessian(512), torch.ones(64, 512)
    assert trace_allocations(lambda: accumulator.add(rows), "cpu").peak_bytes < 512 * 512
