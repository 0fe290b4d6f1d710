from __future__ import annotations

import copy

import pytest
import torch

from compressbench.models.fp8_linear import LARGEST, Fp8Linear, misfit, quantize_rows, reference


def drawn(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def e4m3_values() -> list[float]:
    """1 sign, 4 exponent bits (bias 7), 3 fraction bits; all ones is NaN and there is no infinity."""
    found = [0.0]
    for exponent in range(16):
        for fraction in range(8):
            if (exponent, fraction) != (15, 7):
                power = 2.0 ** (exponent - 7) if exponent else 2.0**-6
                found.append(power * ((1 if exponent else 0) + fraction / 8))
    return sorted({sign * value for value in found for sign in (1, -1)})


def test_every_value_becomes_the_nearest_e4m3_number_times_its_row_s_scale() -> None:
    values = torch.tensor(e4m3_values())
    assert float(values.max()) == LARGEST
    matrix = drawn(6, 64) * torch.logspace(-6, 6, 6)[:, None]
    codes, scale = quantize_rows(matrix)
    torch.testing.assert_close(scale, matrix.abs().amax(1) / 448)
    scaled = matrix / scale[:, None]
    nearest = values[(scaled[:, :, None] - values).abs().argmin(2)]
    # a value half way between two may go either way
    torch.testing.assert_close((codes.float() - scaled).abs(), (nearest - scaled).abs(), rtol=1e-5, atol=1e-5)
    assert bool(codes.float().isfinite().all())


def test_rows_of_zeros_are_zeros() -> None:
    codes, scale = quantize_rows(torch.zeros(2, 16))
    assert not bool(codes.float().any())
    assert bool((scale > 0).all())


def test_the_reference_is_the_product_of_the_rounded_matrices() -> None:
    x, weight = drawn(3, 32, 1), drawn(16, 32, 2)
    codes, scale = quantize_rows(weight)
    rounded_x = torch.stack([quantize_rows(row[None])[0][0].double() * float(quantize_rows(row[None])[1]) for row in x])
    expected = [[float((a * b.double() * s).sum()) for b, s in zip(codes, scale, strict=True)] for a in rounded_x]
    torch.testing.assert_close(reference(x, codes, scale), torch.tensor(expected, dtype=torch.double))
    assert relative(reference(x, codes, scale), x @ weight.t()) < 0.06


@pytest.mark.parametrize("rows", [1, 5, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_layer_hands_the_kernel_what_the_reference_multiplies(rows: int, dtype: torch.dtype) -> None:
    weight, bias = drawn(48, 64) * torch.logspace(-2, 1, 48)[:, None], drawn(1, 48, 1)[0]
    layer, x = Fp8Linear(*quantize_rows(weight), bias), drawn(rows, 64, 2).to(dtype)
    x[0] *= 100
    expected = reference(x, layer.codes, layer.scale) + bias.double()
    assert layer(x).dtype == dtype
    assert relative(layer(x), expected) < 4e-3
    assert torch.equal(layer(x.view(1, rows, 64)), layer(x)[None])


def test_a_row_s_scale_does_not_depend_on_the_others() -> None:
    layer, x = Fp8Linear(*quantize_rows(drawn(32, 64)), None), drawn(4, 64, 1)
    louder = torch.cat([x, torch.full((1, 64), 1e4)])
    torch.testing.assert_close(layer(louder)[:4], layer(x))


def test_stored_bytes_restored_and_copied_layers() -> None:
    layer, x = Fp8Linear(*quantize_rows(drawn(32, 64)), drawn(1, 32, 1)[0]), drawn(3, 64, 2)
    expected = layer(x)
    tensors = {name: tensor.clone() for name, tensor in layer.stored_tensors().items()}
    assert sum(tensor.nbytes for tensor in tensors.values()) == 32 * 64 + 4 * 32 + 4 * 32
    assert tensors["codes"].dtype == torch.float8_e4m3fn
    duplicate = copy.deepcopy(layer)
    layer.codes.zero_()
    assert torch.equal(duplicate(x), expected)
    assert torch.equal(Fp8Linear.restore(duplicate.layout(), tensors)(x), expected)
    torch.testing.assert_close(duplicate.dequantized(), tensors["codes"].float() * tensors["scale"][:, None])


def test_shapes_that_the_kernel_cannot_take_are_named() -> None:
    assert misfit(64, 32) == ""
    assert misfit(60, 32) == "60 inputs are no multiple of 16"
    assert misfit(60, 33) == "60 inputs and 33 outputs are no multiple of 16"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("rows", [1, 5, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_on_cuda_computes_the_reference(rows: int, dtype: torch.dtype) -> None:
    layer, x = Fp8Linear(*quantize_rows(drawn(48, 64)), drawn(1, 48, 1)[0]), drawn(rows, 64, 2).to(dtype)
    assert layer.bias is not None
    expected = reference(x, layer.codes, layer.scale) + layer.bias.double()
    assert relative(layer.to("cuda")(x.cuda()).cpu(), expected) < 5e-3
