from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressbench.core.errors import UnsupportedError
from compressbench.methods.maths.integers import per_channel_symmetric
from compressbench.methods.quantization import int8_dynamic
from compressbench.methods.quantization.cast import Cast
from compressbench.methods.quantization.int8_dynamic import Int8Dynamic
from compressbench.methods.quantization.int8_weight_only import Int8WeightOnly
from compressbench.models.handle import ModelHandle
from compressbench.models.int8_linear import Int8DynamicLinear, Int8Linear, Int8WeightLinear, best_engine
from compressbench.models.parts import replace_module, target_linears
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm, tiny_classifier

BATCH = {"input_ids": torch.tensor([[2, 4, 6, 8, 3], [2, 5, 7, 9, 3]])}
INT8: list[Any] = [Int8Dynamic, Int8WeightOnly]


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return tiny_classifier()


@pytest.fixture(scope="module")
def causal_lm() -> ModelHandle:
    return tiny_causal_lm(num_layers=2)


def logits(handle: ModelHandle) -> torch.Tensor:
    result: torch.Tensor = TorchEager().prepare(handle, "cpu")(BATCH)
    return result.float()


def with_rounded_weights(handle: ModelHandle) -> ModelHandle:
    """The plain model whose weights were rounded to int8 and back."""
    copy = handle.copy()
    with torch.no_grad():
        for module in target_linears(copy.model).values():
            codes, scale = per_channel_symmetric(module.weight)
            module.weight.copy_(codes * scale[:, None])
    return copy


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_cast_model_holds_nothing_else_and_computes_nearly_the_same(causal_lm: ModelHandle, dtype: Any) -> None:
    done = Cast(dtype=dtype).apply(causal_lm.copy())
    assert {parameter.dtype for parameter in done.model.parameters()} == {getattr(torch, dtype)}
    assert done.weights == dtype == Cast(dtype=dtype).weights_after("float32")
    assert done.model.lm_head.weight is done.model.model.embed_tokens.weight
    for name, tensor in done.model.state_dict().items():
        assert torch.equal(tensor, causal_lm.model.state_dict()[name].to(tensor.dtype))
    error = (logits(done) - logits(causal_lm)).norm() / logits(causal_lm).norm()
    assert 0 < float(error) < 0.03


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_int8_dynamic_of_a_half_precision_model_multiplies_what_was_left_of_the_weights(
    classifier: ModelHandle, dtype: Any
) -> None:
    half = Cast(dtype=dtype).apply(classifier.copy())
    done = Int8Dynamic().apply(half.copy())
    assert done.weights == "int8"
    assert {parameter.dtype for parameter in done.model.parameters()} == {getattr(torch, dtype)}
    expected = logits(with_rounded_weights(half))
    assert float((logits(done) - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize("method", INT8)
def test_int8_replaces_the_linear_modules_of_the_layers_and_leaves_heads_and_embeddings(
    classifier: ModelHandle, causal_lm: ModelHandle, method: Any
) -> None:
    for handle in (classifier, causal_lm):
        done = method().apply(handle.copy())
        chosen = set(target_linears(handle.model))
        packed = {name for name, module in done.model.named_modules() if isinstance(module, Int8Linear)}
        assert packed == chosen
        assert done.notes["num_modules"] == len(chosen)
        assert done.weights == "int8" == method().weights_after("float32")
        before = handle.model.state_dict()
        for name, tensor in done.model.state_dict().items():
            if name.rpartition(".")[0] not in chosen or name.endswith(".bias"):
                assert torch.equal(tensor, before[name]), name
        for name in chosen:
            codes, scale = per_channel_symmetric(before[f"{name}.weight"])
            assert torch.equal(done.model.state_dict()[f"{name}.weight"], codes)
            assert torch.equal(done.model.state_dict()[f"{name}.weight_scale"], scale)
    assert isinstance(method().apply(causal_lm.copy()).model.lm_head, nn.Linear)


def test_weight_only_computes_what_the_rounded_weights_compute(classifier: ModelHandle, causal_lm: ModelHandle) -> None:
    for handle in (classifier, causal_lm):
        found, rounded = logits(Int8WeightOnly().apply(handle.copy())), logits(with_rounded_weights(handle))
        torch.testing.assert_close(found, rounded, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(found, logits(handle), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weight_only_works_on_half_precision_models(causal_lm: ModelHandle, dtype: Any) -> None:
    half = Cast(dtype=dtype).apply(causal_lm.copy())
    expected = logits(causal_lm)
    done = Int8WeightOnly().apply(half)
    assert done.notes["kernel"] == ("int8pack_mm" if dtype == "bfloat16" else "dequantize")
    assert float((logits(done) - expected).norm() / expected.norm()) < 0.05


def test_dynamic_rounds_activations_too_and_says_with_which_kernel(classifier: ModelHandle) -> None:
    done = Int8Dynamic().apply(classifier.copy())
    rounded, exact = logits(with_rounded_weights(classifier)), logits(classifier)
    assert not torch.allclose(logits(done), rounded, rtol=1e-4, atol=1e-6)
    assert float((logits(done) - exact).norm() / exact.norm()) < 0.1
    assert done.notes["engine"] == best_engine()


@pytest.mark.parametrize("has_vnni", [True, False])
def test_the_range_is_reduced_only_without_vnni_unless_it_is_asked_for(
    classifier: ModelHandle, monkeypatch: pytest.MonkeyPatch, has_vnni: bool
) -> None:
    monkeypatch.setattr(int8_dynamic, "_has_vnni", lambda: has_vnni)
    for asked, expected in ((None, not has_vnni), (True, True), (False, False)):
        done = Int8Dynamic(reduce_range=asked).apply(classifier.copy())
        layers = [module for module in done.model.modules() if isinstance(module, Int8DynamicLinear)]
        assert {layer.reduce_range for layer in layers} == {expected}
        assert done.notes["reduce_range"] is expected


@pytest.mark.parametrize("method", INT8)
def test_targets_and_ignore_narrow_what_is_quantized(classifier: ModelHandle, method: Any) -> None:
    done = method(targets=(r"re:.*layer\.0\.",), ignore=("attention",)).apply(classifier.copy())
    layer = "bert.encoder.layer.0"
    packed = {name for name, module in done.model.named_modules() if isinstance(module, Int8Linear)}
    assert packed == {f"{layer}.intermediate.dense", f"{layer}.output.dense"}
    head = method(targets=("classifier",)).apply(classifier.copy())
    assert isinstance(head.model.classifier, Int8Linear)
    with pytest.raises(UnsupportedError):
        method(targets=("no_such_module",)).apply(classifier.copy())


@pytest.mark.parametrize("method", INT8)
def test_a_copy_of_an_int8_model_computes_the_same_with_weights_of_its_own(
    classifier: ModelHandle, method: Any
) -> None:
    done = method().apply(classifier.copy())
    copy, before = done.copy(), logits(done)
    assert torch.equal(logits(copy), before)
    for name in [name for name, module in done.model.named_modules() if isinstance(module, Int8Linear)]:
        replace_module(done.model, name, nn.Identity())
    assert torch.equal(logits(copy), before)


def test_int8_after_pruning_keeps_the_zeros(classifier: ModelHandle) -> None:
    handle = classifier.copy()
    weight = handle.model.bert.encoder.layer[0].output.dense.weight
    with torch.no_grad():
        weight[:, ::2] = 0
    for method in INT8:
        layer = method().apply(handle.copy()).model.bert.encoder.layer[0].output.dense
        assert isinstance(layer, (Int8DynamicLinear, Int8WeightLinear))
        assert not bool(layer.stored_tensors()["weight"][:, ::2].any())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_cast_model_is_the_one_that_transformers_loads_in_that_type(dtype: Any, tmp_path: Path) -> None:
    """Rotary frequencies stay in float32, as they do in from_pretrained."""
    from transformers import AutoModelForCausalLM

    handle = tiny_causal_lm()
    handle.model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    ids = torch.arange(4, 19)[None]
    with torch.inference_mode():
        assert torch.equal(Cast(dtype=dtype).apply(handle).model(ids).logits, loaded(ids).logits)
