from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compressbench.methods.maths.integers import per_channel_symmetric
from compressbench.models.int8_linear import (
    Int8DynamicLinear,
    Int8Linear,
    Int8WeightLinear,
    best_engine,
    int8_row_product,
    int8_rows_matmul,
)

ENGINES = [
    name for name in ("onednn", "x86", "fbgemm", "qnnpack") if name in torch.backends.quantized.supported_engines
]
# qnnpack takes no notice of reduce_range and says so on stderr
SETTINGS = [(engine, reduce) for engine in ENGINES for reduce in (False, True) if not (engine == "qnnpack" and reduce)]


def layer(
    seed: int, bias: bool = True, inputs: int = 48, outputs: int = 20
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """weight (outputs x inputs) whose channels differ in scale, activations (7 x inputs), bias."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator) * torch.logspace(-2, 1, outputs)[:, None]
    x = torch.randn(7, inputs, generator=generator) + 0.3
    return weight, x, torch.randn(outputs, generator=generator) if bias else None


def dynamic(weight: torch.Tensor, bias: torch.Tensor | None, engine: str, reduce: bool = False) -> Int8DynamicLinear:
    return Int8DynamicLinear(*per_channel_symmetric(weight), bias, engine=engine, reduce_range=reduce)


def dequantized(weight: torch.Tensor) -> torch.Tensor:
    codes, scale = per_channel_symmetric(weight)
    return codes.double() * scale.double()[:, None]


def exact(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    y = x.double() @ weight.double().t()
    return y if bias is None else y + bias.double()


def with_rounded_activations(x: torch.Tensor, levels: int) -> torch.Tensor:
    """Asymmetric rounding with one scale for the whole tensor, the range widened to hold zero."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (high - low) / levels
    zero = round(-low / step)
    return ((x.double() / step).round() + zero).clamp(0, levels).sub(zero) * step


@pytest.mark.parametrize(("engine", "reduce"), SETTINGS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_packed_kernel_computes_rounded_activations_times_rounded_weights(
    engine: str, reduce: bool, bias: bool
) -> None:
    weight, x, offset = layer(0, bias)
    found = dynamic(weight, offset, engine, reduce)(x)
    expected = exact(with_rounded_activations(x, 127 if reduce else 255), dequantized(weight), offset)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_error_is_within_what_both_steps_allow_and_is_not_zero(engine: str) -> None:
    weight, x, bias = layer(1)
    _, scale = per_channel_symmetric(weight)
    step = (max(float(x.max()), 0.0) - min(float(x.min()), 0.0)) / 255
    error = (dynamic(weight, bias, engine)(x).double() - exact(x, weight, bias)).abs()
    from_weights = x.abs().double().sum(dim=1)[:, None] * scale.double()[None] / 2
    from_activations = dequantized(weight).abs().sum(dim=1)[None] * step
    assert bool((error <= from_weights + from_activations + 1e-5).all())
    assert float(error.max()) > 1e-4


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "qnnpack"])
def test_a_reduced_range_rounds_activations_twice_as_coarsely(engine: str) -> None:
    weight, x, bias = layer(2, inputs=512)
    rounded = exact(x, dequantized(weight), bias)
    full, reduced = ((dynamic(weight, bias, engine, reduce)(x) - rounded).norm() for reduce in (False, True))
    assert float(reduced / full) == pytest.approx(255 / 127, rel=0.15)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_large_activation_coarsens_all_rows_of_the_packed_kernel(engine: str) -> None:
    weight, x, bias = layer(3)
    with_outlier = torch.cat([x, torch.full((1, x.shape[1]), 50.0)])
    linear = dynamic(weight, bias, engine)
    truth = exact(x, weight, bias)
    assert float((linear(with_outlier)[:7] - truth).norm()) > 3 * float((linear(x) - truth).norm())


@pytest.mark.parametrize("engine", [*ENGINES, "cuda"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_state_dict_carries_a_layer_into_another_of_the_same_shape(engine: str, bias: bool) -> None:
    weight, x, offset = layer(4, bias)
    other_weight, _, other_offset = layer(5, bias)
    one, other = dynamic(weight, offset, engine), dynamic(other_weight, other_offset, engine)
    assert not torch.equal(one(x), other(x))
    state = one.state_dict()
    assert set(state) == {"weight", "weight_scale", *(["bias"] if bias else [])}
    assert state["weight"].dtype == torch.int8
    assert torch.equal(state["weight"], per_channel_symmetric(weight)[0])
    other.load_state_dict(state)
    assert torch.equal(one(x), other(x))


@pytest.mark.parametrize("engine", [*ENGINES, "cuda"])
def test_a_state_dict_without_scales_is_refused(engine: str) -> None:
    weight, _, bias = layer(4)
    linear = dynamic(weight, bias, engine)
    state = linear.state_dict()
    del state["weight_scale"]
    with pytest.raises((KeyError, RuntimeError), match="weight_scale"):
        linear.load_state_dict(state)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_copied_layer_computes_the_same_with_weights_of_its_own(engine: str) -> None:
    weight, x, bias = layer(6)
    linear = dynamic(weight, bias, engine)
    before = linear(x)
    other = copy.deepcopy(linear)
    linear.load_state_dict(dynamic(weight * 2, bias, engine).state_dict())
    assert torch.equal(other(x), before)


def test_packing_leaves_the_engine_of_the_process_as_it_was() -> None:
    weight, x, bias = layer(6)
    before = torch.backends.quantized.engine
    for engine in ENGINES:
        dynamic(weight, bias, engine)(x)
        assert torch.backends.quantized.engine == before


def test_the_best_engine_is_one_that_this_build_has() -> None:
    assert best_engine() in torch.backends.quantized.supported_engines
    assert best_engine() == ENGINES[0]


def three_dimensional(linear: Int8Linear, dtype: torch.dtype) -> None:
    x = torch.randn(3, 5, linear.in_features, generator=torch.Generator().manual_seed(8)).to(dtype)
    found = linear(x)
    assert found.shape == (3, 5, linear.out_features)
    assert found.dtype == dtype
    assert torch.equal(found.reshape(15, -1), linear(x.reshape(15, -1)))
    assert linear(x.transpose(0, 1)).equal(found.transpose(0, 1)), "a view that is not contiguous"


@pytest.mark.parametrize("engine", [*ENGINES, "cuda"])
def test_the_dynamic_layer_takes_any_leading_dimensions(engine: str) -> None:
    weight, _, bias = layer(7)
    three_dimensional(dynamic(weight, bias, engine), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
def test_the_weight_only_layer_takes_any_leading_dimensions(dtype: torch.dtype, bias: bool) -> None:
    weight, _, offset = layer(7, bias)
    linear = Int8WeightLinear(*per_channel_symmetric(weight), None if offset is None else offset.to(dtype))
    x = torch.randn(3, 5, 48, generator=torch.Generator().manual_seed(8)).to(dtype)
    found = linear(x)
    assert found.shape == (3, 5, 20)
    assert found.dtype == dtype
    torch.testing.assert_close(found.reshape(15, 20), linear(x.reshape(15, 48)), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("bias", [True, False])
def test_weights_alone_are_off_by_at_most_half_a_step_each(bias: bool) -> None:
    weight, x, offset = layer(9, bias)
    codes, scale = per_channel_symmetric(weight)
    found = Int8WeightLinear(codes, scale, offset)(x).double()
    torch.testing.assert_close(found, exact(x, dequantized(weight), offset), rtol=1e-5, atol=1e-4)
    allowed = x.abs().double().sum(dim=1)[:, None] * scale.double()[None] / 2
    error = (found - exact(x, weight, offset)).abs()
    assert bool((error <= allowed + 1e-5).all())
    assert float((error / allowed).max()) > 0.02


@pytest.mark.parametrize("rows", [1, 2, 7, 33])
def test_the_bfloat16_kernel_agrees_with_dequantized_weights_within_bfloat16_rounding(rows: int) -> None:
    weight, _, bias = layer(10, inputs=64, outputs=32)
    assert bias is not None
    codes, scale = per_channel_symmetric(weight)
    x = torch.randn(rows, 64, generator=torch.Generator().manual_seed(11)).bfloat16()
    found = Int8WeightLinear(codes, scale, bias.bfloat16())(x)
    products = x.double().abs() @ dequantized(weight).abs().t()
    expected = exact(x, dequantized(weight), bias)
    # the scale, the product and the sum with the bias are each rounded to 8 bits; sums are kept in more
    allowed = 2.0**-8 * (2 * (expected.abs() + bias.double().abs()) + expected.abs()) + 1e-3 * products
    assert found.dtype == torch.bfloat16
    assert bool(((found.double() - expected).abs() <= allowed).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_product_of_one_row_is_that_of_the_dequantized_weights(dtype: torch.dtype) -> None:
    weight, x, _ = layer(4)
    row = x[0].to(dtype)
    found = int8_row_product(row, *per_channel_symmetric(weight))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact(row, dequantized(weight), None), rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_compiled_on_cuda_one_row_and_several_have_the_same_product(dtype: torch.dtype) -> None:
    weight, x, bias = layer(5, inputs=512, outputs=80)
    linear = Int8WeightLinear(*per_channel_symmetric(weight), bias).to("cuda")
    compiled = torch.compile(linear)
    with torch.inference_mode():
        several = compiled(x.to("cuda", dtype)).double().cpu()
        one = compiled(x[:1].to("cuda", dtype)).double().cpu()
    expected = exact(x.to(dtype), dequantized(weight), bias)
    for found, right in ((several, expected), (one, expected[:1])):
        assert float((found - right).norm() / right.norm()) < (1e-5 if dtype == torch.float32 else 1e-2)


def test_a_state_dict_brings_the_scales_that_the_kernel_reads() -> None:
    weight, x, _ = layer(6, bias=False)
    linear, other = (Int8WeightLinear(*per_channel_symmetric(each), None) for each in (weight, 3 * weight))
    assert "kernel_scale" not in linear.state_dict()
    linear.load_state_dict(other.state_dict())
    assert torch.equal(linear(x.bfloat16()), other(x.bfloat16()))


def test_float16_does_not_overflow_where_the_result_fits() -> None:
    codes, scale = per_channel_symmetric(torch.full((4, 256), 0.01))
    found = Int8WeightLinear(codes, scale, None)(torch.full((2, 256), 10.0, dtype=torch.float16))
    torch.testing.assert_close(found.float(), torch.full((2, 4), 25.6), rtol=2e-3, atol=0)


def test_float16_keeps_scales_that_it_could_not_hold() -> None:
    weight = torch.tensor([[1e-5, -1e-5, 5e-6]])  # the step, 8e-8, is next to the smallest float16
    found = Int8WeightLinear(*per_channel_symmetric(weight), None)(torch.eye(3, dtype=torch.float16) * 1000)
    torch.testing.assert_close(found.float().flatten(), weight.flatten() * 1000, rtol=2e-2, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_the_weight_only_state_dict_goes_round(bias: bool) -> None:
    weight, x, offset = layer(12, bias)
    other_weight, _, other_offset = layer(13, bias)
    one = Int8WeightLinear(*per_channel_symmetric(weight), offset)
    other = Int8WeightLinear(*per_channel_symmetric(other_weight), other_offset)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))
    assert {name: tensor.dtype for name, tensor in one.stored_tensors().items()} == {
        "weight": torch.int8, "weight_scale": torch.float32, **({"bias": torch.float32} if bias else {}),
    }  # fmt: skip


@pytest.mark.parametrize("rows", [1, 16, 17, 40])
def test_products_per_row_agree_with_integer_arithmetic(rows: int) -> None:
    weight, _, _ = layer(14)
    codes, scale = per_channel_symmetric(weight)
    x = torch.randn(rows, 48, generator=torch.Generator().manual_seed(15)) * torch.logspace(-3, 3, rows)[:, None]
    x[0] = 0.0
    found = int8_rows_matmul(x, codes, scale)
    for row, result in zip(x, found, strict=True):
        step = max(float(row.abs().max()), 1e-12) / 127
        quantized = [round(value / step) for value in row.tolist()]
        for channel, factor, value in zip(codes.tolist(), scale.tolist(), result.tolist(), strict=True):
            total = sum(a * b for a, b in zip(quantized, channel, strict=True))
            assert value == pytest.approx(total * step * factor, rel=1e-5, abs=1e-30)


def test_the_layer_for_cuda_adds_its_bias_and_scales_every_row_by_itself() -> None:
    weight, x, bias = layer(16)
    assert bias is not None
    linear = dynamic(weight, bias, "cuda")
    with_outlier = torch.cat([x, torch.full((1, x.shape[1]), 50.0)])
    assert torch.equal(linear(with_outlier)[:7], linear(x))
    codes, scale = per_channel_symmetric(weight)
    torch.testing.assert_close(linear(x), int8_rows_matmul(x, codes, scale) + bias)


def test_a_layer_in_a_model_is_saved_under_the_names_of_a_plain_one() -> None:
    weight, _, bias = layer(17)
    plain = nn.Sequential(nn.Linear(48, 20))
    packed = nn.Sequential(dynamic(weight, bias, best_engine()))
    assert set(packed.state_dict()) - set(plain.state_dict()) == {"0.weight_scale"}
    assert "in_features=48, out_features=20" in repr(packed)
