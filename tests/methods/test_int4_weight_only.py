from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressbench.core.errors import UnsupportedError
from compressbench.methods.quantization.cast import Cast
from compressbench.methods.quantization.int4_weight_only import Int4WeightOnly
from compressbench.models.handle import ModelHandle
from compressbench.models.int4_linear import Int4Linear, quantize_int4
from compressbench.models.parts import matrix, replace_module, target_linears
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm, tiny_classifier

BATCH = {"input_ids": torch.tensor([[2, 4, 6, 8, 3], [2, 5, 7, 9, 3]])}


@pytest.fixture(scope="module", params=[tiny_classifier, tiny_causal_lm])
def handle(request: pytest.FixtureRequest) -> ModelHandle:
    made: ModelHandle = request.param(num_layers=2)
    return made


def logits(handle: ModelHandle) -> torch.Tensor:
    found: torch.Tensor = TorchEager().prepare(handle, handle.device)(BATCH)
    return found.float().cpu()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def with_rounded_weights(handle: ModelHandle, group_size: int) -> ModelHandle:
    rounded = handle.copy()
    for module in target_linears(rounded.model).values():
        matrix(module).copy_(quantize_int4(matrix(module), group_size).dequantize())
    return rounded


@pytest.mark.parametrize("group_size", [32, 64])
def test_the_model_computes_what_its_rounded_weights_compute(handle: ModelHandle, group_size: int) -> None:
    done = Int4WeightOnly.model_validate({"group_size": group_size}).apply(handle.copy())
    rounded = logits(with_rounded_weights(handle, group_size))
    assert 0 < relative(logits(done), rounded) < 0.02
    assert relative(logits(done), logits(handle)) > 1e-3
    layers = {name for name, module in done.model.named_modules() if isinstance(module, Int4Linear)}
    (claim,) = done.claims
    assert layers == set(claim.modules) == set(target_linears(handle.model))
    assert (claim.bits, claim.is_smaller, done.weights) == (4, True, "packed")


def test_the_claimed_kernel_runs(handle: ModelHandle) -> None:
    done = Int4WeightOnly(group_size=32).apply(handle.copy())
    with torch.profiler.profile() as profile:
        logits(done)
    names = [event.key for event in profile.key_averages()]
    assert any(kernel in name for kernel in done.claims[0].kernels for name in names)


def test_bfloat16_models_stay_bfloat16_and_float16_is_not_taken(handle: ModelHandle) -> None:
    half = Cast().apply(handle.copy())
    expected = logits(half)
    done = Int4WeightOnly(group_size=32).apply(half)
    assert TorchEager().prepare(done, "cpu")(BATCH).dtype == torch.bfloat16
    assert relative(logits(done), expected) < 0.5
    assert "float16" not in Int4WeightOnly.facts.accepts


def test_modules_that_do_not_fit_are_left_out_with_the_reason(handle: ModelHandle) -> None:
    odd = handle.copy()
    first, second = list(target_linears(odd.model))[:2]
    replace_module(odd.model, first, nn.Linear(96, 64))
    replace_module(odd.model, second, nn.Linear(64, 40))
    done = Int4WeightOnly(group_size=64).apply(odd)
    (claim,) = done.claims
    assert claim.left_out[first] == "96 inputs are no multiple of group_size 64"
    assert claim.left_out[second] == "40 outputs are no multiple of 16"
    assert type(done.model.get_submodule(first)) is nn.Linear
    with pytest.raises(UnsupportedError, match="64 inputs are no multiple of group_size 256"):
        Int4WeightOnly(group_size=256).apply(handle.copy())
    with pytest.raises(ValidationError):
        Int4WeightOnly.model_validate({"group_size": 48})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_cuda_the_model_computes_what_its_rounded_weights_compute() -> None:
    start = tiny_causal_lm(num_layers=2)
    rounded = logits(with_rounded_weights(start, 32))
    on_cuda = replace(start, model=start.copy().model.to("cuda"), device="cuda")
    assert relative(logits(Int4WeightOnly(group_size=32).apply(on_cuda)), rounded) < 0.03
