from __future__ import annotations

import copy
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from compressbench.core.errors import MissingDependencyError
from compressbench.models import bnb_linear
from compressbench.models.bnb_linear import Bnb4Linear, BnbInt8Linear, bitsandbytes

pytest.importorskip("bitsandbytes", reason="bitsandbytes is installed on x86-64 Linux and Windows only")

# QLoRA, appendix E
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_FP4_HALF = (0.0, 1 / 192, 2 / 3, 1.0, 1 / 3, 1 / 2, 1 / 6, 1 / 4)
CODEBOOKS = {"nf4": NF4, "fp4": (*_FP4_HALF, *(-value for value in _FP4_HALF))}
DTYPES = ["float32", "bfloat16", "float16"]
TOLERANCE = {"float32": 1e-6, "bfloat16": 4e-3, "float16": 6e-4}


def drawn(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def layer4(
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    quant_type: str = "nf4",
    nested: bool = False,
    **changed: Any,
) -> Bnb4Linear:
    layout = {"quant_type": quant_type, "blocksize": 64, "compute_dtype": "bfloat16", **changed}
    return Bnb4Linear.quantize(weight, bias, layout, nested)


def unpacked(layer: Bnb4Linear) -> torch.Tensor:
    """codebook[code] * absmax, from the stored tensors alone."""
    stored = layer.stored_tensors()
    codes = torch.stack([stored["codes"] >> 4, stored["codes"] & 15], dim=2).flatten().long()
    absmax = stored["absmax"]
    if "nested_absmax" in stored:
        table = bitsandbytes().functional.create_dynamic_map()
        scale = stored["nested_absmax"].repeat_interleave(256)[: len(absmax)]
        absmax = table[absmax.long()] * scale + stored["nested_offset"]
    values = torch.tensor(CODEBOOKS[layer.quant_type])[codes] * absmax.repeat_interleave(layer.blocksize)
    return values.view(layer.out_features, layer.in_features)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [(32, 64), (96, 512), (20, 128)])
def test_4_bit_weights_are_codebook_values_times_the_largest_of_their_block(
    quant_type: str, nested: bool, shape: tuple[int, int]
) -> None:
    weight = drawn(*shape) * torch.logspace(-2, 1, shape[0])[:, None]
    layer = layer4(weight, quant_type=quant_type, nested=nested)
    found = unpacked(layer)
    torch.testing.assert_close(layer.dequantized(), found, rtol=1e-6, atol=1e-7)
    blocks, rounded = weight.view(-1, 64), found.view(-1, 64)
    table = torch.tensor(CODEBOOKS[quant_type]).sort().values
    gap = float(table.diff().max()) / 2
    slack = 0.02 if nested else 1e-5
    assert bool(((blocks - rounded).abs().amax(1) <= (gap + slack) * blocks.abs().amax()).all())
    if not nested:
        assert bool(((blocks - rounded).abs().amax(1) <= (gap + slack) * blocks.abs().amax(1)).all())
        nearest = table[(blocks[:, :, None] / blocks.abs().amax(1)[:, None, None] - table).abs().argmin(2)]
        torch.testing.assert_close(rounded, nearest * blocks.abs().amax(1, keepdim=True), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("compute", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(64, 128), (20, 64)])
def test_4_bit_outputs_are_those_of_the_dequantized_weights(compute: str, bias: bool, shape: tuple[int, int]) -> None:
    weight, offset = drawn(*shape), drawn(1, shape[0], 1)[0] if bias else None
    layer = layer4(weight, offset, compute_dtype=compute)
    for x in (drawn(7, shape[1], 2), drawn(1, shape[1], 3), drawn(6, shape[1], 4).view(2, 3, -1)):
        rounded = x.to(getattr(torch, compute)).double()
        expected = rounded @ unpacked(layer).double().t() + (0 if offset is None else offset.double())
        assert layer(x).dtype == x.dtype
        assert layer(x).shape == expected.shape
        assert relative(layer(x), expected) < TOLERANCE[compute]


def test_4_bit_tensors_have_the_bytes_of_their_bits_and_scales() -> None:
    weight = drawn(128, 512)
    n = weight.numel()
    single, double = layer4(weight), layer4(weight, nested=True)
    bytes_of = [sum(tensor.nbytes for tensor in layer.stored_tensors().values()) for layer in (single, double)]
    assert bytes_of[0] == n // 2 + 4 * n // 64
    assert bytes_of[1] == n // 2 + n // 64 + 4 * (n // 64 // 256) + 4
    held = {id(tensor.untyped_storage()): tensor.nbytes for tensor in single.buffers()}
    assert sum(held.values()) <= bytes_of[0] + n // 32 + 64  # the kernel's scales and the codebook


@pytest.mark.parametrize("nested", [False, True])
def test_a_forward_changes_nothing_that_is_stored(nested: bool) -> None:
    layer = layer4(drawn(64, 128), drawn(1, 64, 1)[0], nested=nested)
    before = {name: tensor.clone() for name, tensor in layer.stored_tensors().items()}
    layer(drawn(3, 128))
    after = layer.stored_tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_library_s_own_module_does_lose_its_scales_in_a_forward() -> None:
    if not bitsandbytes().functional.has_avx512bf16():
        pytest.skip("only on CPUs with AVX512-BF16")
    module = bitsandbytes().nn.Linear4bit(128, 64, quant_type="nf4", compute_dtype=torch.bfloat16).to("cpu").eval()
    before = module.state_dict()["weight.absmax"].clone()
    with torch.no_grad():
        module(drawn(3, 128))
    assert not torch.equal(module.state_dict()["weight.absmax"].flatten(), before)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("compute", ["bfloat16", "float32"])
def test_restored_and_copied_4_bit_layers_give_the_same_bits(nested: bool, compute: str) -> None:
    layer, x = layer4(drawn(64, 128), drawn(1, 64, 1)[0], nested=nested, compute_dtype=compute), drawn(5, 128, 2)
    expected = layer(x)
    tensors = {name: tensor.clone() for name, tensor in layer.stored_tensors().items()}
    again = Bnb4Linear.restore(layer.layout(), tensors)
    duplicate = copy.deepcopy(layer)
    layer.codes.zero_()
    assert torch.equal(again(x), expected)
    assert torch.equal(duplicate(x), expected)
    assert torch.equal(duplicate.to("cpu")(x), expected)


def test_a_fresh_process_gives_the_same_bits(tmp_path: Path) -> None:
    layers = [layer4(drawn(64, 128), nested=True), BnbInt8Linear.quantize(drawn(64, 128), None, 6.0)]
    x = drawn(5, 128, 1)
    for index, layer in enumerate(layers):
        save_file(dict(layer.stored_tensors()), tmp_path / f"{index}.safetensors")
    save_file({"x": x, "0": layers[0](x), "1": layers[1](x)}, tmp_path / "expected.safetensors")
    script = (
        "import sys, torch; from pathlib import Path; from safetensors.torch import load_file\n"
        "from compressbench.models.bnb_linear import Bnb4Linear, BnbInt8Linear\n"
        "folder = Path(sys.argv[1]); expected = load_file(folder / 'expected.safetensors')\n"
        f"layouts = {[dict(layer.layout()) for layer in layers]!r}\n"
        "for index, (kind, layout) in enumerate(zip((Bnb4Linear, BnbInt8Linear), layouts)):\n"
        "    layer = kind.restore(layout, load_file(folder / f'{index}.safetensors'))\n"
        "    assert torch.equal(layer(expected['x']), expected[str(index)]), kind\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("nested", [False, True])
def test_a_module_of_the_library_becomes_a_layer_of_the_same_outputs(nested: bool) -> None:
    nn, x = bitsandbytes().nn, drawn(5, 128, 1)
    four = nn.Linear4bit(128, 64, quant_type="nf4", compress_statistics=nested, compute_dtype=torch.bfloat16)
    eight = nn.Linear8bitLt(128, 64, has_fp16_weights=False, threshold=6.0)
    four, eight = four.to("cpu").eval(), eight.to("cpu").eval()
    ours = Bnb4Linear.from_library(four), BnbInt8Linear.from_library(eight)
    with torch.no_grad():
        assert torch.equal(ours[0](x), four(x))
        assert torch.equal(ours[1](x), eight(x))


@pytest.mark.parametrize("shape", [(16, 24), (5, 7), (33, 64)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_threshold_0_is_integer_arithmetic_with_a_scale_per_row_and_per_token(
    shape: tuple[int, int], dtype: str
) -> None:
    x = drawn(6, shape[1], 1).to(getattr(torch, dtype))
    layer = BnbInt8Linear.quantize(drawn(*shape), drawn(1, shape[0], 2)[0], 0.0)
    half = x.half()
    step = half.abs().amax(1, keepdim=True).float()
    codes = (half * (127 / step)).round()
    product = (codes.double() @ layer.weight.double().t()) * step.double() * layer.weight_scale.double() / 127**2
    assert layer(x).dtype == x.dtype
    assert layer.bias is not None
    # bitsandbytes 0.50.2 multiplies by 6.200124e-05 for 1 / 127**2, which is 1.8e-5 too much
    assert relative(layer(x), product + layer.bias.double()) < max(TOLERANCE[dtype], 2e-5)
    weight = drawn(*shape).half().float()
    assert bool(((layer.dequantized() - weight).abs() <= weight.abs().amax(1, keepdim=True) / 250).all())


def test_an_outlier_column_apart_saves_the_others() -> None:
    weight, x = drawn(64, 128), drawn(16, 128, 1).clamp(-4, 4)
    x[:, 17] *= 100
    exact = x.double() @ BnbInt8Linear.quantize(weight, None, 0.0).dequantized().double().t()
    errors = {
        threshold: float((BnbInt8Linear.quantize(weight, None, threshold)(x).double() - exact).norm())
        for threshold in (0.0, 6.0, 1000.0)
    }
    assert errors[0.0] == errors[1000.0]
    assert errors[6.0] < errors[0.0] / 20
    assert errors[6.0] < 1e-3 * float(exact.norm())


def test_when_every_column_is_an_outlier_only_the_weights_are_rounded() -> None:
    layer, x = BnbInt8Linear.quantize(drawn(32, 48), None, 1e-6), drawn(4, 48, 1)
    torch.testing.assert_close(layer(x), x @ layer.dequantized().t(), rtol=1e-5, atol=1e-5)


def test_rows_of_zeros_stay_zeros() -> None:
    weight = drawn(4, 64)
    weight[1] = 0
    layer = BnbInt8Linear.quantize(weight, None, 6.0)
    assert not bool(layer.weight[1].any())
    x = drawn(3, 64, 1)
    x[2] = 0
    assert bool(layer(x).isfinite().all())
    assert not bool(layer(x)[2].any())
    assert not bool(layer4(weight).dequantized()[1].any())


def test_int8_layers_are_restored_and_copied_with_the_bytes_of_their_codes() -> None:
    layer, x = BnbInt8Linear.quantize(drawn(20, 64), drawn(1, 20, 1)[0], 6.0), drawn(3, 64, 2) * 4
    expected = layer(x)
    tensors = {name: tensor.clone() for name, tensor in layer.stored_tensors().items()}
    assert sum(tensor.nbytes for tensor in tensors.values()) == 20 * 64 + 4 * 20 + 4 * 20
    duplicate = copy.deepcopy(layer)
    layer.weight.zero_()
    assert torch.equal(BnbInt8Linear.restore(layer.layout(), tensors)(x), expected)
    assert torch.equal(duplicate(x), expected)
    assert torch.equal(duplicate(x.view(3, 1, 64)), expected[:, None])


def test_nothing_is_said_about_casts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        BnbInt8Linear.quantize(drawn(8, 64), None, 6.0)(drawn(2, 64))
        logging.getLogger("bitsandbytes.autograd._functions").warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependencyError, match="pip install bitsandbytes"):
        bnb_linear.bitsandbytes.__wrapped__()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_layers_on_cuda_agree_with_the_dequantized_weights() -> None:
    x = drawn(5, 128, 1)
    for nested in (False, True):
        on_cpu = layer4(drawn(64, 128), nested=nested)
        expected, stored = x.bfloat16().double() @ unpacked(on_cpu).double().t(), on_cpu.stored_tensors()
        on_cuda = copy.deepcopy(on_cpu).to("cuda")
        assert relative(on_cuda(x.cuda()).cpu(), expected) < 1e-2
        for name, tensor in on_cuda.stored_tensors().items():
            assert torch.equal(tensor.cpu(), stored[name])
    int8 = BnbInt8Linear.quantize(drawn(64, 128), None, 6.0)
    assert relative(int8.to("cuda")(x.cuda()).cpu(), x @ int8.cpu().dequantized().t()) < 2e-2
