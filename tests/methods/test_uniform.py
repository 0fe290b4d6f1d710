from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from compressbench.methods.maths.uniform import Grid, group_grid, round_to_codes, rtn
from compressbench.models.packed_linear import PackedLinear

BITS = (2, 3, 4, 8)
TYPES = (torch.float16, torch.bfloat16, torch.float32)


def weights(seed: int, rows: int = 12, columns: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = 10.0 ** torch.randint(-3, 3, (rows, 1), generator=generator).float()
    shifts = torch.randn(rows, 1, generator=generator)
    return (torch.randn(rows, columns, generator=generator) + shifts) * sizes


def grid_by_hand(row: list[float], bits: int, sym: bool) -> tuple[float, int]:
    """Scale in float16 and zero point of one group, as the papers write them."""
    low, high = min(0.0, *row), max(0.0, *row)
    if sym:
        scale = float(np.float16(2 * max(-low, high) / (2**bits - 1)))
        return scale, 2 ** (bits - 1)
    scale = float(np.float16((high - low) / (2**bits - 1)))
    return scale, min(max(round(-low / scale), 0), 2**bits - 1)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("sym", [False, True])
def test_scales_zero_points_and_codes_agree_with_a_loop_in_double_precision(bits: int, sym: bool) -> None:
    weight = weights(bits).double()
    quantized = rtn(weight, Grid(bits, sym=sym))
    for row, codes, scale, zero in zip(
        weight.tolist(), quantized.codes.tolist(), quantized.scale, quantized.zero_points(), strict=True
    ):
        expected_scale, expected_zero = grid_by_hand(row, bits, sym)
        assert (float(scale), int(zero)) == (expected_scale, expected_zero)
        steps = [round(value / expected_scale) + expected_zero for value in row]
        assert codes == [min(max(step, 0), 2**bits - 1) for step in steps]
    assert (quantized.codes.dtype, quantized.scale.dtype) == (torch.uint8, torch.float16)
    assert (quantized.zero is None) == sym


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("sym", [False, True])
def test_no_weight_moves_further_than_half_a_step(bits: int, sym: bool) -> None:
    weight = weights(bits + 10)
    quantized = rtn(weight, Grid(bits, sym=sym, scale_dtype=torch.float32))
    error = (weight - quantized.dequantize()).abs() / quantized.scale
    assert float(error.max()) <= 0.5 * (1 + 1e-4)
    assert float(error.amax(dim=1).min()) > 0.25, "codes of finer steps would be off by less"


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("options", [{}, {"sym": True}, {"mse": True}, {"scale_dtype": torch.bfloat16}])
def test_rounding_what_was_rounded_to_the_same_grid_changes_nothing(bits: int, options: dict[str, Any]) -> None:
    quantized = rtn(weights(3), Grid(bits, **options))
    for dtype in (torch.float32, torch.float64):
        again = round_to_codes(quantized.dequantize(dtype), quantized.scale, quantized.zero_points(), bits)
        assert torch.equal(again.byte(), quantized.codes)


@pytest.mark.parametrize("bits", BITS)
def test_a_uniform_input_loses_six_decibels_per_bit(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    uniform = torch.rand(1, 2**20, generator=generator, dtype=torch.float64)

    def decibels(values: torch.Tensor, rounded: torch.Tensor) -> float:
        return 10 * math.log10(float(values.var() / (values - rounded).square().mean()))

    # 2**b steps that tile the input: each of the 2**b codes stands for the same share of it
    tiled = uniform * 2**bits - 0.5
    codes = round_to_codes(tiled, torch.ones(1), torch.zeros(1), bits)
    assert decibels(tiled, codes) == pytest.approx(6.0206 * bits, abs=0.02)
    # from min to max there are 2**b - 1 steps
    for sym in (False, True):
        quantized = rtn(uniform * 2 - 1, Grid(bits, sym=sym, scale_dtype=torch.float32))
        found = decibels(uniform * 2 - 1, quantized.dequantize(torch.float64))
        assert found == pytest.approx(20 * math.log10(2**bits - 1), abs=0.02)


@pytest.mark.parametrize("bits", BITS)
def test_a_group_has_at_most_as_many_values_as_codes_and_uses_them(bits: int) -> None:
    weight = weights(5, rows=4, columns=2048)
    values = rtn(weight, Grid(bits, group_size=1024)).dequantize().unflatten(1, (2, 1024))  # type: ignore[no-untyped-call]
    counts = [len(group.unique()) for row in values for group in row]
    assert max(counts) <= 2**bits
    assert min(counts) > 2**bits // 2


@pytest.mark.parametrize("options", [{}, {"sym": True}, {"mse": True}])
def test_groups_are_runs_of_input_features_and_the_last_may_be_shorter(options: dict[str, Any]) -> None:
    weight = weights(6, columns=40)
    whole = rtn(weight, Grid(3, group_size=16, **options))
    parts = [rtn(weight[:, start : start + 16], Grid(3, **options)) for start in (0, 16, 32)]
    assert torch.equal(whole.codes, torch.cat([part.codes for part in parts], dim=1))
    assert torch.equal(whole.scale, torch.cat([part.scale for part in parts], dim=1))
    assert torch.equal(whole.dequantize(), torch.cat([part.dequantize() for part in parts], dim=1))
    larger_than_the_row = rtn(weight, Grid(3, group_size=64, **options))
    assert torch.equal(larger_than_the_row.dequantize(), rtn(weight, Grid(3, **options)).dequantize())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("options", [{}, {"sym": True}, {"mse": True}, {"sym": True, "mse": True}])
def test_a_weight_of_zero_stays_exactly_zero(bits: int, options: dict[str, Any]) -> None:
    weight = weights(7)
    weight[:, ::3] = 0
    assert not bool(rtn(weight, Grid(bits, group_size=8, **options)).dequantize()[:, ::3].any())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_range_includes_zero_where_all_weights_have_one_sign(bits: int, sign: int) -> None:
    weight = sign * torch.tensor([[100.0, 101.0, 102.0]])
    quantized = rtn(weight, Grid(bits))
    assert float(quantized.scale) == pytest.approx(102 / (2**bits - 1), rel=1e-3)
    assert int(quantized.zero_points()) == (0 if sign == 1 else 2**bits - 1)


@pytest.mark.parametrize("scale_dtype", TYPES)
@pytest.mark.parametrize("sym", [False, True])
def test_a_group_of_zeros_and_one_of_almost_zeros_stay_finite(scale_dtype: torch.dtype, sym: bool) -> None:
    smallest = torch.finfo(scale_dtype).tiny * torch.finfo(scale_dtype).eps
    columns = torch.tensor([[0.0, -0.0], [smallest / 1e5, 0.0], [1.0, -0.5]], dtype=torch.float64)
    scale, _ = group_grid(columns, Grid(4, sym=sym, scale_dtype=scale_dtype))
    assert scale.double()[:2].tolist() == [1.0, smallest]
    values = rtn(columns, Grid(4, sym=sym, scale_dtype=scale_dtype)).dequantize()
    assert values[:2].abs().tolist() == [[0, 0], [0, 0]]
    assert float(values[2, 0]) == pytest.approx(1, abs=0.07)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e9])
@pytest.mark.parametrize("options", [{}, {"sym": True}, {"mse": True}])
def test_a_weight_without_a_finite_scale_is_refused(bad: float, options: dict[str, Any]) -> None:
    weight = torch.tensor([[1.0, 0.5], [bad, 0.0]])
    with pytest.raises(ValueError, match=r"must be finite, and its scale must fit into torch\.float16"):
        rtn(weight, Grid(4, **options))
    if bad == 1e9:
        rtn(weight, Grid(4, scale_dtype=torch.float32, **options))


@pytest.mark.parametrize("sym", [False, True])
def test_the_search_finds_the_range_that_trying_all_by_hand_finds(sym: bool) -> None:
    weight = weights(8, rows=6).double()
    quantized = rtn(weight, Grid(3, sym=sym, mse=True))
    for row, scale in zip(weight.tolist(), quantized.scale, strict=True):
        best = (math.inf, 0.0)
        for percent in range(100, 20, -1):
            low, high = (limit * percent / 100 for limit in (min(0.0, *row), max(0.0, *row)))
            step, zero = grid_by_hand([low, high] if not sym else [max(-low, high)], 3, sym)
            rounded = [(min(max(round(value / step) + zero, 0), 7) - zero) * step for value in row]
            error = sum(abs(value - other) ** 2.4 for value, other in zip(row, rounded, strict=True))
            best = min(best, (error * (1 + 1e-12 * (100 - percent)), step))
        assert float(scale) == best[1]


@pytest.mark.parametrize("bits", BITS)
def test_the_search_never_errs_more_and_pays_most_beside_an_outlier(bits: int) -> None:
    weight = weights(9, columns=256)
    weight[0] = torch.randn(256, generator=torch.Generator().manual_seed(1))
    weight[0, 0] = 8.0

    def error(mse: bool) -> torch.Tensor:
        rounded = rtn(weight, Grid(bits, mse=mse)).dequantize()
        return (weight - rounded).double().abs().pow(2.4).sum(dim=1)

    assert bool((error(True) <= error(False) * (1 + 1e-5)).all())
    if bits <= 3:
        assert float(error(True)[0]) < 0.8 * float(error(False)[0])


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("group_size", [-1, 32, 16])
def test_stored_bytes_are_the_bits_of_the_weights_and_zero_points_and_the_scales(bits: int, group_size: int) -> None:
    weight, groups = weights(11, rows=24, columns=256), 1 if group_size == -1 else 256 // group_size
    for sym in (False, True):
        stored = PackedLinear(rtn(weight, Grid(bits, group_size, sym))).stored_tensors()
        sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in stored.items()}
        assert sizes.pop("packed") == 24 * 256 * bits / 8
        assert sizes.pop("scale") == 24 * groups * 2
        # planes of a single zero point are filled up to whole bytes
        planes = bin(bits).count("1")
        assert sizes == ({} if sym else {"zero": 24 * planes if groups == 1 else 24 * groups * bits / 8})


def test_packing_gives_the_same_matrix_back() -> None:
    weight = weights(12)
    for grid in (Grid(3, 16), Grid(5, sym=True), Grid(4, 8, mse=True)):
        quantized = rtn(weight, grid)
        assert torch.equal(PackedLinear(quantized).dequantized(), quantized.dequantize())


def test_half_precision_weights_are_rounded_as_the_numbers_they_are() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        weight = weights(13).to(dtype)
        before = weight.clone()
        assert torch.equal(rtn(weight, Grid(4)).codes, rtn(weight.float(), Grid(4)).codes)
        assert torch.equal(weight, before)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"bits": 1}, "bits must lie in 2 .. 8, got 1"),
        ({"bits": 9}, "bits must lie in 2 .. 8, got 9"),
        ({"bits": 4, "group_size": 0}, "group_size must be -1"),
        ({"bits": 4, "group_size": -2}, "group_size must be -1"),
        ({"bits": 4, "scale_dtype": torch.int8}, "scale_dtype must be a floating-point type"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Grid(**options)
