from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import (
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
)

from compressbench.core.errors import UnsupportedError
from compressbench.methods.pruning.depth_pruning import DepthPruning
from compressbench.models.handle import ModelHandle
from compressbench.models.parts import layer_stack
from compressbench.models.quiet import quiet
from compressbench.models.size import count_weights
from compressbench.runtimes.torch_eager import TorchEager
from compressbench.testing import tiny_causal_lm, tiny_classifier

PROMPT = {"input_ids": torch.tensor([[2, 4, 6, 8], [2, 5, 7, 9]]), "attention_mask": torch.ones(2, 4, dtype=torch.long)}


@pytest.fixture(scope="module")
def causal_lm() -> ModelHandle:
    """Weights large enough that every layer decides which token comes next."""
    handle = tiny_causal_lm(num_layers=5)
    with torch.no_grad():
        for parameter in handle.model.parameters():
            parameter.mul_(1.0 if parameter.dim() == 1 else 6.0)
    return handle


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return tiny_classifier(num_layers=4)


def pruned(handle: ModelHandle, **options: Any) -> ModelHandle:
    return DepthPruning(**options).apply(handle.copy())


def layers_of(handle: ModelHandle) -> Any:
    return layer_stack(handle.model)[2]


def logits(handle: ModelHandle) -> torch.Tensor:
    result: torch.Tensor = TorchEager().prepare(handle, "cpu")(PROMPT)
    return result


def test_evenly_spaced_layers_keep_the_ends_rise_and_never_repeat() -> None:
    for present in range(1, 25):
        for wanted in range(1, present + 1):
            kept = DepthPruning(num_layers=wanted).layers_to_keep(present)
            assert len(kept) == wanted
            assert kept[0] == 0
            assert wanted == 1 or kept[-1] == present - 1
            gaps = [after - before for before, after in itertools.pairwise(kept)]
            assert all(gap >= 1 for gap in gaps)
            assert not gaps or max(gaps) - min(gaps) <= 1, "evenly"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "either num_layers or keep"),
        ({"num_layers": 2, "keep": (0, 1)}, "either num_layers or keep"),
        ({"num_layers": 0}, "greater than or equal to 1"),
        ({"keep": ()}, "at least 1 item"),
        ({"keep": (1, 0)}, "rising indices"),
        ({"keep": (0, 0, 1)}, "rising indices"),
        ({"keep": (-1, 0)}, "rising indices"),
    ],
)
def test_an_amount_is_given_once_and_in_order(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        DepthPruning(**options)


def llama_parameters(layers: int, vocabulary: int = 19, hidden: int = 64, inner: int = 128, heads: int = 4) -> int:
    key_value = 2 * hidden // heads
    layer = 2 * hidden * hidden + 2 * hidden * key_value + 3 * hidden * inner + 2 * hidden
    return vocabulary * hidden + layers * layer + hidden


def test_the_removed_layers_are_really_gone(causal_lm: ModelHandle) -> None:
    assert count_weights(causal_lm.model).num_parameters == llama_parameters(5)
    for wanted in range(1, 6):
        done = pruned(causal_lm, num_layers=wanted)
        assert count_weights(done.model).num_parameters == llama_parameters(wanted)
        assert done.model.num_parameters() == llama_parameters(wanted)
        assert done.config["num_hidden_layers"] == len(layers_of(done)) == wanted
    assert causal_lm.config["num_hidden_layers"] == 5, "the model that was copied stays as it was"
    assert pruned(causal_lm, num_layers=3).notes["kept_layers"] == "0,2,4"


def test_the_layers_that_stay_are_those_that_were_named(causal_lm: ModelHandle) -> None:
    done = pruned(causal_lm, keep=(1, 2, 4))
    for old, new in zip((1, 2, 4), layers_of(done), strict=True):
        before = layers_of(causal_lm)[old].state_dict()
        assert all(torch.equal(tensor, before[name]) for name, tensor in new.state_dict().items())
    assert torch.equal(done.model.lm_head.weight, causal_lm.model.lm_head.weight)


def test_keeping_all_layers_changes_nothing(causal_lm: ModelHandle, classifier: ModelHandle) -> None:
    for handle, count in ((causal_lm, 5), (classifier, 4)):
        assert torch.equal(logits(pruned(handle, num_layers=count)), logits(handle))


def test_a_layer_that_adds_nothing_can_go_without_a_trace(causal_lm: ModelHandle) -> None:
    handle = causal_lm.copy()
    layer = layers_of(handle)[2]
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    assert torch.equal(logits(pruned(handle, keep=(0, 1, 3, 4))), logits(handle))
    assert not torch.allclose(logits(pruned(handle, keep=(0, 2, 3, 4))), logits(handle), atol=1e-3)


@pytest.mark.parametrize("options", [{"keep": (0, 2, 3)}, {"keep": (2, 3, 4)}, {"keep": (4,)}, {"num_layers": 2}])
def test_generation_with_a_cache_equals_generation_without(causal_lm: ModelHandle, options: dict[str, Any]) -> None:
    done = pruned(causal_lm, **options)
    session = TorchEager().prepare(done, "cpu")
    cached = session.generate(PROMPT, 12)
    ids = PROMPT["input_ids"]
    scored = done.model.generate(
        **PROMPT, do_sample=False, use_cache=False, min_new_tokens=12, max_new_tokens=12,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    assert torch.equal(cached, scored.sequences)
    assert cached.shape == (2, ids.shape[1] + 12)
    assert len(set(cached[:, 4:].flatten().tolist())) > 2, "one token over and over would prove little"
    for step, step_logits in enumerate(scored.logits):  # and both equal plain forward passes over what is there so far
        plain = session({"input_ids": cached[:, : 4 + step], "attention_mask": torch.ones_like(cached[:, : 4 + step])})
        torch.testing.assert_close(step_logits, plain[:, -1], rtol=1e-4, atol=1e-4)
    layers = layers_of(done)
    assert [layer.self_attn.layer_idx for layer in layers] == list(range(len(layers)))


@pytest.mark.parametrize("kind", [LlamaForCausalLM, BertForSequenceClassification])
def test_a_shallow_model_is_saved_and_loaded_like_any_other(
    causal_lm: ModelHandle, classifier: ModelHandle, tmp_path: Path, kind: Any
) -> None:
    done = pruned(causal_lm if kind is LlamaForCausalLM else classifier, num_layers=2)
    with quiet():
        done.model.save_pretrained(tmp_path)
        loaded, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.config.num_hidden_layers == 2
    assert torch.equal(logits(replace(done, model=loaded.eval())), logits(done))


def test_more_layers_than_there_are_is_unsupported(causal_lm: ModelHandle) -> None:
    for step in (DepthPruning(num_layers=6), DepthPruning(keep=(0, 5))):
        with pytest.raises(UnsupportedError, match="the model has 5 layers"):
            step.check_model({"num_hidden_layers": 5})
        with pytest.raises(UnsupportedError, match="the model has 5 layers"):
            step.apply(causal_lm.copy())
    DepthPruning(num_layers=5).check_model({"num_hidden_layers": 5})
    DepthPruning(num_layers=50).check_model({})  # a configuration that does not say is asked again when it is applied


def other_models() -> list[Any]:
    encoder = DistilBertConfig(vocab_size=19, dim=32, n_layers=3, n_heads=2, hidden_dim=64, max_position_embeddings=16)
    decoder = GPT2Config(
        vocab_size=19, n_embd=32, n_layer=3, n_head=2, n_positions=16, bos_token_id=2, eos_token_id=3, pad_token_id=0
    )
    torch.manual_seed(0)
    return [DistilBertForSequenceClassification(encoder), GPT2LMHeadModel(decoder)]


@pytest.mark.parametrize("index", [0, 1])
def test_models_that_spell_their_depth_otherwise_are_pruned_and_refused_alike(
    causal_lm: ModelHandle, tmp_path: Path, index: int
) -> None:
    model = other_models()[index].eval()
    handle = replace(causal_lm, model=model)
    assert "num_hidden_layers" not in handle.config
    with pytest.raises(UnsupportedError, match="the model has 3 layers"):
        pruned(handle, num_layers=5)
    done = pruned(handle, keep=(0, 2))
    assert done.model.config.num_hidden_layers == 2
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers about its own models
        done.model.save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(logits(replace(done, model=loaded)), logits(done))
