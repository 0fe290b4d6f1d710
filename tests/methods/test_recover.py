from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lessons import (
    are_equal,
    inputs_of,
    perturbed,
    resumed,
    sentences,
    sharpened,
    supplied,
    weights,
    windows,
    without_dropout,
)
from pydantic import ValidationError
from transformers import GPT2Config, GPT2LMHeadModel

from compressbench.core.errors import UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.methods.distillation.lora import Adapter, attached, parameters_of
from compressbench.methods.distillation.recover import Recover
from compressbench.methods.pruning.magnitude import Magnitude
from compressbench.models.handle import ModelHandle
from compressbench.models.parts import matrix, target_linears
from compressbench.testing import tiny_causal_lm, tiny_classifier


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return sharpened(tiny_classifier())


@pytest.fixture(scope="module")
def causal_lm() -> ModelHandle:
    return sharpened(tiny_causal_lm(num_layers=1))


def tiny_gpt2() -> ModelHandle:
    config = GPT2Config(vocab_size=19, n_embd=16, n_layer=1, n_head=2, n_positions=16, bos_token_id=2, eos_token_id=3)
    torch.manual_seed(0)
    return sharpened(tiny_causal_lm(num_layers=1).with_model(GPT2LMHeadModel(config).eval()))


def surprise(handle: ModelHandle, batches: list[Batch]) -> float:
    with torch.inference_mode():
        return sum(float(handle.model.eval()(**batch).loss) for batch in batches) / len(batches)


def logits(handle: ModelHandle, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        return handle.model.eval()(**inputs_of(batch)).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("options", [{}, {"lora_rank": 8, "learning_rate": 1e-2}, {"precision": "float32"}])
def test_labels_are_learned_again_after_pruning(
    classifier: ModelHandle, causal_lm: ModelHandle, options: dict[str, Any]
) -> None:
    for handle, batches in ((classifier, sentences()), (causal_lm, windows())):
        pruned = Magnitude(sparsity=0.5).apply(handle.copy())
        masks = {name: module.weight == 0 for name, module in target_linears(pruned.model).items()}
        before = surprise(pruned, batches)
        step = Recover(**{"num_epochs": 10, "learning_rate": 3e-3, **options})
        done = step.apply(supplied(pruned, None, batches))
        assert surprise(done, batches) < 0.8 * before
        assert all(torch.equal(done.model.get_submodule(name).weight == 0, mask) for name, mask in masks.items())
        assert done.claims[-1].step == "recover"
        assert done.claims[-1].is_retrained


def test_the_loss_is_the_models_own_cross_entropy(classifier: ModelHandle, causal_lm: ModelHandle) -> None:
    for handle, batches in ((classifier, sentences()), (causal_lm, windows())):
        student = without_dropout(handle.copy())
        done = Recover(precision="float32").apply(supplied(student, None, batches[:1]))
        assert done.notes["last_loss"] == pytest.approx(surprise(student, batches[:1]), rel=1e-5)


def adapted(handle: ModelHandle, rank: int = 4, seed: int = 0) -> dict[str, Adapter]:
    torch.manual_seed(seed)
    return {name: Adapter.beside(module, rank, 8.0) for name, module in target_linears(handle.model).items()}


def trained(adapters: dict[str, Adapter]) -> None:
    """As if they had been trained: B is no longer zero."""
    torch.manual_seed(1)
    for adapter in adapters.values():
        adapter.b.data.normal_(std=0.2)


@pytest.mark.parametrize("make", [tiny_classifier, tiny_causal_lm, tiny_gpt2])
def test_fresh_adapters_change_no_bit(make: Any) -> None:
    handle, batch = make(), windows(count=1)[0]
    plain = logits(handle, batch)
    with attached(adapted(handle)):
        assert torch.equal(logits(handle, batch), plain)
    assert torch.equal(logits(handle, batch), plain)


@pytest.mark.parametrize("make", [tiny_classifier, tiny_causal_lm, tiny_gpt2])
@pytest.mark.parametrize("is_pruned", [False, True])
def test_the_merged_model_computes_what_the_adapters_did(make: Any, is_pruned: bool) -> None:
    handle, batch = make(), windows(count=1)[0]
    if is_pruned:
        handle = Magnitude(sparsity=0.6).apply(handle)
    plain, before = logits(handle, batch), weights(handle)
    adapters = adapted(handle)
    trained(adapters)
    with attached(adapters):
        beside = logits(handle, batch)
    assert are_equal(weights(handle), before), "adapters stand beside the weights"
    assert torch.equal(logits(handle, batch), plain), "and are taken away again"
    for adapter in adapters.values():
        adapter.merge()
    merged = logits(handle, batch)
    torch.testing.assert_close(merged, beside, rtol=1e-5, atol=1e-5)
    assert float((merged - plain).abs().max()) > 100 * float((merged - beside).abs().max())
    for name, module in target_linears(handle.model).items():
        was_zero = before[f"{name}.weight"] == 0
        assert is_pruned == bool(was_zero.any())
        assert torch.equal(module.weight == 0, was_zero)


def test_an_adapter_adds_a_scaled_product_of_its_rank() -> None:
    handle = tiny_gpt2()
    adapters = adapted(handle, rank=3)
    trained(adapters)
    for name, module in target_linears(handle.model).items():
        adapter, before = adapters[name], matrix(module).clone()
        assert adapter.a.shape == (3, before.shape[1])
        assert adapter.b.shape == (before.shape[0], 3)
        bound = before.shape[1] ** -0.5
        assert 0.8 * bound < float(adapter.a.detach().abs().max()) <= bound
        adapter.merge()
        change = matrix(module) - before
        torch.testing.assert_close(change, 8.0 / 3 * (adapter.b @ adapter.a).detach(), rtol=1e-4, atol=1e-5)
        assert int(torch.linalg.matrix_rank(change, atol=1e-4)) == 3
    assert len(parameters_of(adapters)) == 2 * len(adapters)


@pytest.mark.parametrize("choice", [{}, {"targets": ["query", "value"]}, {"ignore": ["attention"]}])
def test_only_the_adapted_modules_change(classifier: ModelHandle, choice: dict[str, Any]) -> None:
    handle = classifier.copy()
    chosen = set(target_linears(handle.model, choice.get("targets", ()), choice.get("ignore", ())))
    before = weights(handle)
    step = Recover(lora_rank=2, num_epochs=2, learning_rate=1e-2, **choice)
    done = step.apply(supplied(handle, None, sentences()))
    after = weights(done)
    assert after.keys() == before.keys(), "no adapter stays"
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{name}.weight" for name in chosen}
    assert set(done.claims[-1].modules) == chosen
    sizes = sum(sum(module.weight.shape) for name, module in target_linears(done.model).items() if name in chosen)
    assert done.notes["num_trained_parameters"] == 2 * sizes
    assert not any(module._forward_hooks for module in done.model.modules())


def test_all_weights_are_trained_without_a_rank(classifier: ModelHandle) -> None:
    done = Recover().apply(supplied(classifier, None, sentences()))
    assert done.notes["num_trained_parameters"] == sum(each.numel() for each in done.model.parameters())
    assert done.claims[-1].modules == ()


def test_weights_in_bfloat16_take_adapters_too(causal_lm: ModelHandle) -> None:
    handle = causal_lm.copy()
    handle.model.to(torch.bfloat16)
    before = surprise(handle, windows())
    for precision in ("bfloat16", "float32"):
        step = Recover.model_validate({"lora_rank": 4, "num_epochs": 10, "learning_rate": 2e-2, "precision": precision})
        done = step.apply(supplied(handle, None, windows()))
        assert {parameter.dtype for parameter in done.model.parameters()} == {torch.bfloat16}
        assert surprise(done, windows()) < 0.9 * before


@pytest.mark.parametrize("options", [{}, {"lora_rank": 4}])
def test_an_interrupted_run_ends_with_the_same_bits(
    classifier: ModelHandle, tmp_path: Path, options: dict[str, Any]
) -> None:
    step = Recover(checkpoint_every=2, num_epochs=2, learning_rate=1e-2, **options)
    given = supplied(perturbed(classifier), None, sentences(), seed=9)
    assert are_equal(weights(resumed(step, given, tmp_path, cut_after=5)), weights(step.apply(given.copy())))


def test_modules_that_are_not_there_are_unsupported(classifier: ModelHandle) -> None:
    with pytest.raises(UnsupportedError, match="no linear module"):
        Recover(lora_rank=2, targets=("nowhere",)).apply(supplied(classifier, None, sentences()))


@pytest.mark.parametrize(
    "options", [{"lora_rank": 0}, {"lora_rank": 4, "lora_alpha": 0}, {"targets": ["query"]}, {"lora_alpha": 4.0}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Recover(**options)
    Recover.model_validate(Recover().model_dump())
