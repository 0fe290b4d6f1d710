from __future__ import annotations

import copy

import pytest
import torch

from compressbench.models import int4_linear
from compressbench.models.bit_packing import unpack
from compressbench.models.int4_linear import GROUP_SIZES, Int4Linear, Int4Weight, misfit, quantize_int4

SHAPES = [(16, 32), (64, 64), (80, 256), (208, 96)]


def drawn(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def any_weight(rows: int, columns: int, group_size: int) -> Int4Weight:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 16, (rows, columns), dtype=torch.uint8, generator=generator)
    scale = torch.rand(rows, columns // group_size, generator=generator) + 0.1
    zero = torch.randn(rows, columns // group_size, generator=generator)
    return Int4Weight(codes, scale.bfloat16(), zero.bfloat16())


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_every_weight_becomes_the_nearest_of_its_group_s_16_values(group_size: int) -> None:
    weight = drawn(32, 512) * torch.logspace(-3, 2, 32)[:, None] + 0.3
    found = quantize_int4(weight, group_size)
    for row, column in ((0, 0), (5, 100), (17, 511), (31, 256), (31, 3)):
        group = column // group_size
        scale, zero = float(found.scale[row, group]), float(found.zero[row, group])
        values = [(code - 8) * scale + zero for code in range(16)]
        nearest = min(values, key=lambda value: abs(value - float(weight[row, column])))
        assert float(found.dequantize()[row, column]) == pytest.approx(nearest, rel=1e-5, abs=1e-7)
    groups, rounded = weight.view(32, -1, group_size), found.dequantize().view(32, -1, group_size)
    step = (groups.amax(2) - groups.amin(2)) / 15
    # the scale and the zero are good to 8 bits each
    allowed = 0.5 * step + 15 * step / 256 + groups.abs().amax(2) / 128
    assert bool(((groups - rounded).abs().amax(2) <= allowed).all())


def test_a_group_of_equal_weights_keeps_its_value() -> None:
    found = quantize_int4(torch.cat([torch.full((1, 32), 0.5), torch.zeros(1, 32)]), 32)
    torch.testing.assert_close(found.dequantize(), torch.tensor([0.5, 0.0])[:, None].expand(2, 32), atol=1e-9, rtol=0)


def test_uniform_weights_have_the_noise_of_4_bits() -> None:
    weight = torch.rand(64, 4096, generator=torch.Generator().manual_seed(0)) * 2 - 1
    error = weight - quantize_int4(weight, 256).dequantize()
    decibel = 10 * torch.log10(weight.var() / error.var())
    # 16 values over the whole range are 15 steps
    assert float(decibel) == pytest.approx(20 * float(torch.log10(torch.tensor(15.0))), abs=0.3)


@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_multiplies_with_the_codes_scales_and_zeros(
    group_size: int, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    rows, columns = shape
    if columns % group_size:
        columns = 2 * group_size
    weight, bias = any_weight(rows, columns, group_size), drawn(1, rows, 2)[0]
    layer = Int4Linear(weight, bias)
    for x in (drawn(5, columns, 3), drawn(1, columns, 4), drawn(6, columns, 5).view(2, 3, -1)):
        found = layer(x.to(dtype))
        expected = x.bfloat16().double() @ weight.dequantize().double().t()
        assert found.dtype == dtype
        assert found.shape == expected.shape
        assert relative(found, expected + bias) < 6e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_the_codes_come_back_out_of_the_kernel_s_order(shape: tuple[int, int]) -> None:
    weight = any_weight(*shape, 32)
    layer = Int4Linear(weight, None)
    for found, expected in zip(layer.quantized(), weight, strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(layer.dequantized(), weight.dequantize())
    assert torch.equal(unpack(layer.stored_tensors()["codes"], 4, shape[1]), weight.codes)


def test_blocks_of_rows_are_ordered_alike_one_after_the_other() -> None:
    codes = any_weight(208, 96, 32).codes
    whole = int4_linear._to_kernel_order(codes)
    for start in range(0, 208, 64):
        part = int4_linear._to_kernel_order(codes[start : start + 64])
        assert torch.equal(whole.flatten()[start * 48 : (start + 64) * 48], part.flatten())


@pytest.mark.parametrize("bias", [True, False])
def test_stored_bytes_are_those_of_4_bits_and_two_numbers_a_group(bias: bool) -> None:
    layer = Int4Linear(any_weight(48, 256, 64), drawn(1, 48)[0] if bias else None)
    n = 48 * 256
    stored = layer.stored_tensors()
    assert sum(tensor.nbytes for tensor in stored.values()) == n // 2 + 4 * n // 64 + (4 * 48 if bias else 0)
    assert sum(tensor.nbytes for tensor in layer.buffers()) == n // 2 + 4 * n // 64


def test_restored_and_copied_layers_give_the_same_bits_and_a_forward_changes_nothing() -> None:
    layer, x = Int4Linear(any_weight(80, 64, 32), drawn(1, 80)[0]), drawn(3, 64, 6)
    before = {name: tensor.clone() for name, tensor in layer.stored_tensors().items()}
    expected = layer(x)
    after = layer.stored_tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)
    duplicate = copy.deepcopy(layer)
    layer.packed.zero_()
    assert torch.equal(duplicate.to("cpu")(x), expected)
    assert torch.equal(Int4Linear.restore(layer.layout(), before)(x), expected)


def test_shapes_that_the_kernels_cannot_take_are_named() -> None:
    assert misfit(96, 64, 64, "cpu") == "96 inputs are no multiple of group_size 64"
    assert misfit(128, 24, 64, "cpu") == "24 outputs are no multiple of 16"
    assert misfit(128, 24, 64, "cuda:0") == ""
    assert misfit(128, 20, 64, "cuda") == "20 outputs are no multiple of 8"
    with pytest.raises(RuntimeError, match="16"):
        Int4Linear(any_weight(24, 64, 32), None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("columns", [32, 64, 128, 256])
def test_the_kernel_on_cuda_multiplies_with_the_same_weights(columns: int) -> None:
    weight, x = any_weight(80, columns, 32), drawn(5, columns, 3)
    on_cpu = Int4Linear(weight, None)
    on_cuda = copy.deepcopy(on_cpu).to("cuda")
    assert relative(on_cuda(x.cuda()).cpu(), x.bfloat16().double() @ weight.dequantize().double().t()) < 1e-2
    for name, tensor in on_cuda.stored_tensors().items():
        assert torch.equal(tensor.cpu(), on_cpu.stored_tensors()[name])
    assert torch.equal(on_cuda.to("cpu")(x), on_cpu(x))
