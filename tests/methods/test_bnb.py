from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressbench.core.errors import UnsupportedError
from compressbench.methods.quantization.bnb_fp4 import BnbFp4
from compressbench.methods.quantization.bnb_int8 import BnbInt8
from compressbench.methods.quantization.bnb_nf4 import BnbNf4
from compressbench.methods.quantization.cast import Cast
from compressbench.models.bnb_linear import Bnb4Linear, BnbInt8Linear
from compressbench.models.handle import ModelHandle
from compressbench.models.parts import matrix, replace_module, target_linears
from compressbench.models.stored_layer import StoredLayer
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm, tiny_classifier

pytest.importorskip("bitsandbytes", reason="bitsandbytes is installed on x86-64 Linux and Windows only")

BATCH = {"input_ids": torch.tensor([[2, 4, 6, 8, 3], [2, 5, 7, 9, 3]])}
FOUR_BITS: list[Any] = [BnbNf4, BnbFp4]
ALL: list[Any] = [BnbInt8, *FOUR_BITS]


@pytest.fixture(scope="module", params=[tiny_classifier, tiny_causal_lm])
def handle(request: pytest.FixtureRequest) -> ModelHandle:
    made: ModelHandle = request.param(num_layers=2)
    return made


def logits(handle: ModelHandle) -> torch.Tensor:
    found: torch.Tensor = TorchEager().prepare(handle, "cpu")(BATCH)
    return found.float()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def layers_of(handle: ModelHandle) -> dict[str, StoredLayer]:
    return {name: module for name, module in handle.model.named_modules() if isinstance(module, StoredLayer)}


def with_dequantized_weights(handle: ModelHandle, compressed: ModelHandle) -> ModelHandle:
    """The plain model with the matrices that the compressed one multiplies with."""
    plain = handle.copy()
    for name, layer in layers_of(compressed).items():
        matrix(plain.model.get_submodule(name)).copy_(layer.dequantized())
    return plain


@pytest.mark.parametrize("method", ALL)
def test_every_linear_module_but_the_heads_is_replaced_and_claimed(handle: ModelHandle, method: Any) -> None:
    done = method().apply(handle.copy())
    bits, weights = (8, "int8") if method is BnbInt8 else (4, "packed")
    assert set(layers_of(done)) == set(target_linears(handle.model))
    (claim,) = done.claims
    assert claim.modules == tuple(target_linears(handle.model))
    assert (claim.bits, claim.is_smaller, claim.step) == (
        bits,
        True,
        method.__module__.rpartition(".")[2].replace("_", "-"),
    )
    assert all("head" in why or "tied" in why for why in claim.left_out.values())
    assert done.weights == weights == method().weights_after("float32")
    assert done.notes["num_modules"] == len(claim.modules)


@pytest.mark.parametrize("method", FOUR_BITS)
@pytest.mark.parametrize("double", [False, True])
def test_4_bit_models_compute_what_their_dequantized_weights_compute(
    handle: ModelHandle, method: Any, double: bool
) -> None:
    exact = method(bnb_4bit_compute_dtype="float32", bnb_4bit_use_double_quant=double).apply(handle.copy())
    plain = logits(with_dequantized_weights(handle, exact))
    assert relative(logits(exact), plain) < 1e-5
    half = method(bnb_4bit_use_double_quant=double).apply(handle.copy())
    assert 0 < relative(logits(half), plain) < 0.02
    assert 1e-3 < relative(plain, logits(handle)) < 0.5


@pytest.mark.parametrize(
    "method", [BnbInt8(), BnbInt8(llm_int8_threshold=0), BnbNf4(), BnbFp4(bnb_4bit_compute_dtype="float32")]
)
def test_claimed_kernels_run(handle: ModelHandle, method: Any) -> None:
    done = method.apply(handle.copy())
    with torch.profiler.profile() as profile:
        logits(done)
    names = [event.key for event in profile.key_averages()]
    assert any(kernel in name for kernel in done.claims[0].kernels for name in names)


def test_the_blocks_give_the_scales(handle: ModelHandle) -> None:
    done = BnbNf4(blocksize=32).apply(handle.copy())
    for layer in layers_of(done).values():
        stored = layer.stored_tensors()
        assert stored["absmax"].numel() == layer.num_weights / 32
        assert stored["codes"].numel() == layer.num_weights / 2


def test_llm_int8_is_near_the_model_and_nearer_with_outliers_apart(handle: ModelHandle) -> None:
    expected = logits(handle)
    assert 0 < relative(logits(BnbInt8().apply(handle.copy())), expected) < 0.05
    loud = handle.copy()
    name = next(name for name in target_linears(loud.model) if name.endswith(("intermediate.dense", "up_proj")))
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    x[:, :, 3] = 50.0
    exact = loud.model.get_submodule(name)(x).detach()
    errors = []
    for threshold in (6.0, 0.0):
        layer = BnbInt8(llm_int8_threshold=threshold).apply(handle.copy()).model.get_submodule(name)
        assert isinstance(layer, BnbInt8Linear)
        assert layer.threshold == threshold
        errors.append(relative(layer(x), exact))
    assert errors[0] < 0.01 < 2 * errors[0] < errors[1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", ALL)
def test_half_precision_models_stay_in_their_type(handle: ModelHandle, method: Any, dtype: Any) -> None:
    half = Cast(dtype=dtype).apply(handle.copy())
    expected = logits(half)
    done = method().apply(half)
    assert TorchEager().prepare(done, "cpu")(BATCH).dtype == getattr(torch, dtype)
    assert relative(logits(done), expected) < 0.5


def test_modules_whose_inputs_are_no_whole_blocks_are_left_out_with_the_reason(handle: ModelHandle) -> None:
    odd = handle.copy()
    name = next(iter(target_linears(odd.model)))
    replace_module(odd.model, name, nn.Linear(96, 64))
    done = BnbNf4().apply(odd)
    assert type(done.model.get_submodule(name)) is nn.Linear
    (claim,) = done.claims
    assert claim.left_out[name] == "96 inputs are no multiple of blocksize 64"
    with pytest.raises(UnsupportedError, match="64 inputs are no multiple of blocksize 256"):
        BnbNf4(blocksize=256).apply(handle.copy())


@pytest.mark.parametrize("method", ALL)
def test_targets_narrow_what_is_quantized_and_copies_stand_alone(handle: ModelHandle, method: Any) -> None:
    done = method(targets=(r"re:.*(layer|layers)\.0\.",)).apply(handle.copy())
    assert layers_of(done)
    assert all(".0." in name for name in layers_of(done))
    copied, before = done.copy(), logits(done)
    for name in layers_of(done):
        replace_module(done.model, name, nn.Identity())
    assert torch.equal(logits(copied), before)


def test_options_are_those_of_the_field() -> None:
    assert Bnb4Linear.kind == "bnb-4bit"
    for wrong in ({"bnb_4bit_compute_dtype": "int8"}, {"blocksize": 60}, {"llm_int8_threshold": 6.0}):
        with pytest.raises(ValidationError):
            BnbNf4(**wrong)
    with pytest.raises(ValidationError):
        BnbInt8(llm_int8_threshold=-1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("method", ALL)
def test_on_cuda_the_model_computes_what_its_dequantized_weights_compute(method: Any) -> None:
    from dataclasses import replace

    start = tiny_causal_lm(num_layers=2)
    on_cuda = start.copy()
    on_cuda = replace(on_cuda, model=on_cuda.model.to("cuda"), device="cuda")
    done = method().apply(on_cuda)
    found = TorchEager().prepare(done, "cuda")(BATCH).float().cpu()
    plain = logits(with_dequantized_weights(start, done))
    assert relative(found, plain) < 0.05
