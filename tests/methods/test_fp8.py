from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from compressbench.core.errors import UnsupportedError
from compressbench.core.progress import SilentProgress
from compressbench.core.registry import Resolved
from compressbench.measure.compress import apply_steps
from compressbench.methods.quantization import fp8
from compressbench.methods.quantization.fp8 import Fp8
from compressbench.models.fp8_linear import Fp8Linear, quantize_rows
from compressbench.models.handle import ModelHandle
from compressbench.models.parts import matrix, replace_module, target_linears
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm

BATCH = {"input_ids": torch.tensor([[2, 4, 6, 8, 3], [2, 5, 7, 9, 3]])}


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return tiny_causal_lm(num_layers=2)


def logits(handle: ModelHandle, device: str = "cpu") -> torch.Tensor:
    found: torch.Tensor = TorchEager().prepare(handle, device)(BATCH)
    return found.float().cpu()


def test_a_machine_without_cuda_is_refused(handle: ModelHandle) -> None:
    with pytest.raises(UnsupportedError, match="'fp8' needs cuda"):
        apply_steps(handle.copy(), [Resolved("fp8", Fp8(), {})], {}, SilentProgress())
    with pytest.raises(UnsupportedError, match="'fp8' needs cuda"):
        Fp8().apply(handle.copy())


def test_a_gpu_without_float8_is_refused(handle: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(UnsupportedError, match=r"compute capability 8\.0"):
        Fp8().apply(replace(handle.copy(), device="cuda:0"))


def test_the_modules_are_replaced_claimed_and_left_out(handle: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp8, "_require_float8", lambda device: None)
    odd = handle.copy()
    names = list(target_linears(odd.model))
    replace_module(odd.model, names[0], nn.Linear(60, 64))
    done = Fp8().apply(odd)
    (claim,) = done.claims
    layers = {name for name, module in done.model.named_modules() if isinstance(module, Fp8Linear)}
    assert set(claim.modules) == layers == set(names[1:])
    assert claim.left_out[names[0]] == "60 inputs are no multiple of 16"
    assert (claim.bits, claim.is_smaller, claim.kernels, done.weights) == (8, True, ("_scaled_mm",), "packed")


def test_the_model_computes_nearly_what_it_did(handle: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch multiplies float8 on CPU too, slowly: the same calls, without a GPU."""
    monkeypatch.setattr(fp8, "_require_float8", lambda device: None)
    done = Fp8().apply(handle.copy())
    assert 1e-3 < float((logits(done) - logits(handle)).norm() / logits(handle).norm()) < 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_cuda_the_model_is_near_its_rounded_weights(handle: ModelHandle) -> None:
    rounded = handle.copy()
    for module in target_linears(rounded.model).values():
        codes, scale = quantize_rows(matrix(module))
        matrix(module).copy_(codes.float() * scale[:, None])
    done = Fp8().apply(replace(handle, model=handle.copy().model.to("cuda"), device="cuda"))
    expected = logits(rounded)
    assert float((logits(done, "cuda") - expected).norm() / expected.norm()) < 0.1
