from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import norm

from compressbench.methods.maths.codebooks import blockwise, double_quantize, dynamic_map, fp4, nf4

# arXiv:2305.14314, appendix E
PUBLISHED_NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]
CODEBOOKS = {"nf4": nf4(), "fp4": fp4()}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def bnb() -> Any:
    """bitsandbytes, where its wheels exist: x86-64 Linux and Windows."""
    return pytest.importorskip("bitsandbytes").functional


def normal(seed: int, rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def sqnr_db(weight: torch.Tensor, found: torch.Tensor) -> float:
    noise = (weight.double() - found.double()).square().sum()
    return float(10 * torch.log10(weight.double().square().sum() / noise))


def test_nf4_is_the_published_table() -> None:
    assert nf4().dtype == torch.float32
    assert torch.equal(nf4(), torch.tensor(PUBLISHED_NF4))
    assert [int((nf4() < 0).sum()), int((nf4() == 0).sum()), int((nf4() > 0).sum())] == [7, 1, 8]


def test_nf4_is_the_formula_in_double_precision() -> None:
    positive = [norm.ppf(0.9677083 + (0.5 - 0.9677083) * step / 8) for step in range(8)]
    negative = [-norm.ppf(0.9677083 + (0.5 - 0.9677083) * step / 7) for step in range(7)]
    exact = torch.tensor(sorted([*positive, 0.0, *negative]), dtype=torch.float64) / positive[0]
    assert float((nf4().double() - exact).abs().max()) < 1.1e-7


def test_fp4_is_bitsandbytes_own_variant_and_not_e2m1() -> None:
    twelfths = sorted({round(abs(value) * 12, 4) for value in fp4().tolist()})
    assert twelfths == [0, 0.0625, 2, 3, 4, 6, 8, 12]
    ocp_e2m1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert twelfths != [value * 2 for value in ocp_e2m1]


def test_the_tables_are_those_of_bitsandbytes(bnb: Any) -> None:
    for name, values in CODEBOOKS.items():
        assert torch.equal(values, bnb.get_4bit_type(name, device="cpu"))
    torch.testing.assert_close(dynamic_map(), bnb.create_dynamic_map(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", CODEBOOKS)
def test_every_weight_gets_the_nearest_value_of_its_block(name: str) -> None:
    weight, values = normal(0, 5, 48), CODEBOOKS[name].double()
    quantized = blockwise(weight, CODEBOOKS[name], block_size=16)
    assert (quantized.bits, quantized.group_size, quantized.zero) == (4, 16, None)
    for row in range(5):
        for start in range(0, 48, 16):
            block = weight[row, start : start + 16].double()
            largest = max(abs(float(value)) for value in block)
            assert float(quantized.scale[row, start // 16]) == largest
            for value, code in zip(block, quantized.codes[row, start : start + 16], strict=True):
                distances = (values * largest - value).abs()
                assert float(distances[int(code)]) == float(distances.min())


@pytest.mark.parametrize("name", CODEBOOKS)
def test_no_weight_moves_further_than_half_the_largest_gap(name: str) -> None:
    values = CODEBOOKS[name]
    gap = float(values.sort().values.diff().max())
    weight = normal(1, 64, 256)
    error = (weight - blockwise(weight, values).dequantize()).abs().view(64, -1, 64).amax(dim=2)
    bound = weight.abs().view(64, -1, 64).amax(dim=2) * gap / 2
    assert bool((error <= bound * (1 + 1e-6)).all())
    assert bool((error > bound * 0.9).any()), "a finer code book would stay far below"


@pytest.mark.parametrize("name", CODEBOOKS)
@pytest.mark.parametrize("block_size", [32, 64, 128])
def test_float32_weights_become_bit_for_bit_those_of_bitsandbytes(bnb: Any, name: str, block_size: int) -> None:
    weight = normal(2, 96, 256)
    packed, state = bnb.quantize_4bit(weight, quant_type=name, blocksize=block_size)
    quantized = blockwise(weight, CODEBOOKS[name], block_size)
    codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=1).view_as(weight)
    assert torch.equal(quantized.codes, codes)
    assert torch.equal(quantized.scale.flatten(), state.absmax)
    torch.testing.assert_close(quantized.dequantize(), bnb.dequantize_4bit(packed, state), rtol=2e-7, atol=0)


@pytest.mark.parametrize("name", CODEBOOKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_in_half_precision_bitsandbytes_is_never_nearer_and_differs_only_at_ties(
    bnb: Any, name: str, dtype: torch.dtype
) -> None:
    weight = normal(3, 96, 256).to(dtype)
    packed, _ = bnb.quantize_4bit(weight, quant_type=name, blocksize=64)
    codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=1).view_as(weight)
    quantized = blockwise(weight, CODEBOOKS[name])
    scale = quantized.scale.double().repeat_interleave(64, dim=1)
    ours, theirs = (
        (CODEBOOKS[name].double()[found.long()] * scale - weight.double()).abs() for found in (quantized.codes, codes)
    )
    assert bool((ours <= theirs).all())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert float((quantized.codes != codes).double().mean()) < 1e-3


def test_the_signal_to_noise_ratio_on_normal_weights_is_the_published_one() -> None:
    weight = normal(4, 1024, 1024)
    published = {("nf4", 32): 21.18, ("nf4", 64): 20.73, ("nf4", 128): 20.39}
    published |= {("fp4", 32): 18.85, ("fp4", 64): 18.28, ("fp4", 128): 17.82}
    for (name, block_size), expected in published.items():
        found = sqnr_db(weight, blockwise(weight, CODEBOOKS[name], block_size).dequantize())
        assert found == pytest.approx(expected, abs=0.05)


def test_a_shorter_last_block_is_quantized_as_if_it_stood_alone() -> None:
    weight = normal(5, 7, 100)
    whole = blockwise(weight, nf4())
    parts = [blockwise(part.contiguous(), nf4()) for part in torch.split(weight, 64, dim=1)]
    assert torch.equal(whole.codes, torch.cat([part.codes for part in parts], dim=1))
    assert torch.equal(whole.dequantize(), torch.cat([part.dequantize() for part in parts], dim=1))


def test_quantizing_what_was_quantized_changes_nothing() -> None:
    for values in CODEBOOKS.values():
        once = blockwise(normal(6, 32, 128), values).dequantize()
        assert torch.equal(blockwise(once, values).dequantize(), once)


def test_a_weight_between_two_values_gets_the_lower_one() -> None:
    for values in CODEBOOKS.values():
        ascending = torch.tensor(sorted(set(values.tolist())), dtype=torch.float64)
        middles = (ascending[:-1] + ascending[1:]) / 2
        weight = torch.cat([torch.ones(1, dtype=torch.float64), middles])[None]
        assert blockwise(weight, values).dequantize()[0, 1:].tolist() == ascending[:-1].float().tolist()


def test_a_block_of_zeros_stays_zero() -> None:
    weight = normal(7, 3, 64)
    weight[0] = 0
    for values in CODEBOOKS.values():
        found = blockwise(weight, values).dequantize()
        assert found[0].tolist() == [0.0] * 64
        assert bool((found[1:] != 0).any(dim=1).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_weights_that_are_not_finite_or_too_large_for_their_scale_are_refused(value: float) -> None:
    weight = normal(7, 3, 64)
    weight[1, 3] = value
    with pytest.raises(ValueError, match=r"must be finite, and their scales must fit into torch\.float16"):
        blockwise(weight, nf4(), scale_dtype=torch.float16)


def test_codes_are_the_nearest_for_the_scale_as_stored() -> None:
    weight = normal(8, 16, 128)
    quantized = blockwise(weight, nf4(), scale_dtype=torch.bfloat16)
    every = nf4().double()[:, None, None] * quantized.scale.double().repeat_interleave(64, dim=1)
    nearest = (every - weight.double()).abs().amin(dim=0)
    torch.testing.assert_close((quantized.dequantize().double() - weight).abs(), nearest, rtol=0, atol=1e-6)


def test_double_quantization_costs_4_127_bits_and_moves_no_scale_by_more_than_half_a_gap() -> None:
    scales = blockwise(normal(9, 1024, 1024), nf4()).scale
    double = double_quantize(scales)
    tensors = (double.codes, double.scale, double.mean)
    bits = 4 + 8 * sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1024**2
    assert bits == pytest.approx(4.127, abs=5e-4)
    found = double.dequantize()
    assert found.shape == scales.shape
    largest = double.scale.repeat_interleave(256).view_as(scales)
    gap = float(dynamic_map().diff().max())
    assert bool(((found - scales).abs() <= largest * gap / 2 + 1e-6).all())
    assert bool((found > 0).all())


def test_double_quantization_is_never_further_from_the_scales_than_bitsandbytes(bnb: Any) -> None:
    weight = normal(10, 100, 448)  # 700 scales: the last of three blocks is shorter
    scales = blockwise(weight, nf4()).scale
    _, state = bnb.quantize_4bit(weight, quant_type="nf4", blocksize=64, compress_statistics=True)
    theirs = (bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset).view_as(scales)
    double = double_quantize(scales)
    assert float(double.mean) == pytest.approx(float(state.offset), rel=1e-6)
    torch.testing.assert_close(double.scale, state.state2.absmax)
    assert bool(((double.dequantize() - scales).abs() <= (theirs - scales).abs() + 1e-6).all())
    assert float((double.codes != state.absmax.view_as(scales)).double().mean()) < 0.01


def test_double_quantization_hardly_costs_quality() -> None:
    weight = normal(11, 512, 512)
    quantized = blockwise(weight, nf4())
    double = replace(quantized, scale=double_quantize(quantized.scale).dequantize())
    assert sqnr_db(weight, double.dequantize()) == pytest.approx(sqnr_db(weight, quantized.dequantize()), abs=0.05)
