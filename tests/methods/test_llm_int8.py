from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from compressbench.methods.maths.integers import per_channel_symmetric
from compressbench.methods.maths.llm_int8 import int8_matmul_with_outliers, outlier_features

# bitsandbytes 0.50.2 divides by 127² as * 6.200124e-05, which is 1 + 1.8e-5 times 1 / 16129
BNB_FACTOR = 6.200124e-05 * 127**2
# seed 2 has float16 inputs at exactly 15.5 and 77.5 steps, which its float32 product with 127 / max rounds down
WITHOUT_TIES = [0, 1, 3, 4, 5]


@pytest.fixture(scope="module")
def bnb() -> Any:
    """bitsandbytes, where its wheels exist: x86-64 Linux and Windows."""
    return pytest.importorskip("bitsandbytes")


def problem(seed: int, rows: int = 16, columns: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs without outliers, codes and scales."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator, dtype=torch.float64).clamp(-5, 5)
    return x, *per_channel_symmetric(torch.randn(24, columns, generator=generator))


def dense(x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return x.double() @ (codes.double() * scale.double()[:, None]).T


def plant(x: torch.Tensor, columns: list[int], size: float = 60.0) -> torch.Tensor:
    planted = x.clone()
    planted[:, columns] = size * (1 + x[:, columns].abs()) * x[:, columns].sign()
    return planted


@pytest.mark.parametrize("threshold", [0.0, math.inf, 6.0])
def test_without_outliers_it_is_vector_wise_int8_by_a_loop_over_integers(threshold: float) -> None:
    x, codes, scale = problem(0, rows=4, columns=20)
    found = int8_matmul_with_outliers(x, codes, scale, threshold)
    for row in range(4):
        step = float(torch.tensor(max(abs(value) for value in x[row].tolist()) / 127))
        row_codes = [round(value / step) for value in x[row].tolist()]
        for out in range(24):
            integer = sum(a * b for a, b in zip(row_codes, codes[out].tolist(), strict=True))
            assert float(found[row, out]) == pytest.approx(integer * step * float(scale[out]), rel=1e-12)


def test_threshold_zero_means_no_search_even_with_outliers() -> None:
    x, codes, scale = problem(1)
    planted = plant(x, [3])
    plain = int8_matmul_with_outliers(planted, codes, scale, 0.0)
    assert torch.equal(plain, int8_matmul_with_outliers(planted, codes, scale, math.inf))
    assert not torch.equal(plain, int8_matmul_with_outliers(planted, codes, scale, 6.0))
    assert outlier_features(planted).nonzero().flatten().tolist() == [3]
    assert not bool(outlier_features(planted, 0.0).any())


@pytest.mark.parametrize("seed", range(5))
def test_where_every_feature_is_an_outlier_the_product_is_the_dense_one(seed: int) -> None:
    x, codes, scale = problem(seed)
    assert bool(outlier_features(x, 1e-3).all())
    found = int8_matmul_with_outliers(x, codes, scale, 1e-3)
    torch.testing.assert_close(found, dense(x, codes, scale), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_planted_outliers_add_nothing_to_the_error_of_the_other_features(seed: int) -> None:
    x, codes, scale = problem(seed)
    columns = [5, 40]
    planted, clean = plant(x, columns), x.clone()
    clean[:, columns] = 0
    clean_error = int8_matmul_with_outliers(clean, codes, scale) - dense(clean, codes, scale)
    error = int8_matmul_with_outliers(planted, codes, scale) - dense(planted, codes, scale)
    assert float((error - clean_error).norm() / clean_error.norm()) < 1e-10
    assert float(error.norm() / dense(planted, codes, scale).norm()) < 1e-3
    vector_wise = int8_matmul_with_outliers(planted, codes, scale, 0.0) - dense(planted, codes, scale)
    assert float(vector_wise.norm() / error.norm()) > 20


def test_a_value_at_the_threshold_is_no_outlier_and_one_just_above_in_any_row_is() -> None:
    x = torch.zeros(3, 4)
    x[2] = torch.tensor([6.0, -6.0, 6.001, -6.001])
    assert outlier_features(x).tolist() == [False, False, True, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_result_has_the_type_of_the_inputs_and_is_rounded_once(dtype: torch.dtype) -> None:
    x, codes, scale = problem(2)
    planted = plant(x, [7]).to(dtype)
    found = int8_matmul_with_outliers(planted, codes, scale)
    assert found.dtype == dtype
    assert torch.equal(found, int8_matmul_with_outliers(planted.double(), codes, scale).to(dtype))


def test_rows_of_zeros_give_zeros() -> None:
    x, codes, scale = problem(3)
    x[4] = 0
    assert int8_matmul_with_outliers(x, codes, scale)[4].tolist() == [0.0] * 24


def bnb_output(bnb: Any, weight: torch.Tensor, x: torch.Tensor, threshold: float) -> tuple[Any, Any, Any]:
    """bitsandbytes' layer in evaluation mode (in training it computes the dense product on a CPU), codes and scales."""
    layer = bnb.nn.Linear8bitLt(weight.shape[1], len(weight), bias=False, has_fp16_weights=False, threshold=threshold)
    layer.weight = bnb.nn.Int8Params(weight.half(), requires_grad=False, has_fp16_weights=False)
    layer = layer.to("cpu").eval()
    with torch.no_grad():
        output = layer(x.clone())
    return output, layer.state.CB, layer.state.SCB / 127


def bnb_problem(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(32, 64, generator=generator).half()
    return weight, torch.randn(16, 64, generator=generator).half().float()


@pytest.mark.parametrize("seed", WITHOUT_TIES)
def test_plain_int8_agrees_with_bitsandbytes(bnb: Any, seed: int) -> None:
    weight, x = bnb_problem(seed)
    theirs, codes, scale = bnb_output(bnb, weight, x, 0.0)
    ours = int8_matmul_with_outliers(x, codes, scale, 0.0)
    assert float((ours * BNB_FACTOR - theirs).norm() / theirs.norm()) < 1e-6
    quantization_error = (ours - dense(x, codes, scale)).norm() / theirs.norm()
    assert float(quantization_error) > 3e-3, "the dense product would pass as well"


@pytest.mark.parametrize("seed", WITHOUT_TIES)
def test_features_of_outliers_only_agree_with_bitsandbytes(bnb: Any, seed: int) -> None:
    weight, x = bnb_problem(seed)
    x[:, [3, 50]] = (x[:, [3, 50]] + 20 * x[:, [3, 50]].sign()).half().float()
    theirs, codes, scale = bnb_output(bnb, weight, x, 6.0)
    outside = dense(x * outlier_features(x), codes, scale)
    ours = int8_matmul_with_outliers(x, codes, scale).double() - outside
    assert float((ours * BNB_FACTOR - (theirs - outside)).norm() / ours.norm()) < 1e-5


def test_ordinary_values_in_an_outlier_feature_differ_by_less_than_the_rounding_error(bnb: Any) -> None:
    weight, x = bnb_problem(4)
    x[::4, 9] = 100.0
    x[1::4, 9] = 5.9  # larger than the rest of its row, which bitsandbytes then rounds more coarsely
    theirs, codes, scale = bnb_output(bnb, weight, x, 6.0)
    ours, exact = int8_matmul_with_outliers(x, codes, scale), dense(x, codes, scale)
    distance = float((ours - theirs).norm() / exact.norm())
    assert 1e-6 < distance < float((theirs - exact).norm() / exact.norm()) * 1.5
    assert float((ours - exact).norm()) < float((theirs - exact).norm())


def test_our_codes_are_those_of_bitsandbytes_but_for_ties(bnb: Any) -> None:
    weight, x = bnb_problem(5)
    _, codes, scale = bnb_output(bnb, weight, x, 0.0)
    ours, our_scale = per_channel_symmetric(weight)
    torch.testing.assert_close(our_scale, scale, rtol=2e-7, atol=0)
    differences = (ours.int() - codes.int()).abs()
    assert int(differences.max()) <= 1
    assert float((differences > 0).double().mean()) < 2e-3
