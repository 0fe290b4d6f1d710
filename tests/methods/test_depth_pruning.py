from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
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
    Qwen2Config,
    Qwen2ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from compressbench.core.calibration import Calibration, CalibrationSet
from compressbench.core.errors import CellError, UnsupportedError
from compressbench.core.protocols import Batch
from compressbench.methods.pruning.depth_pruning import DepthPruning, influence_of_tokens, most_influential
from compressbench.models.handle import ModelHandle, Supplies
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
        ({"keep": (0, 1), "importance": "block-influence"}, "chooses the layers itself"),
        ({"num_layers": 2, "calibration": {"num_samples": 4}}, "calibration belongs to importance: block-influence"),
        ({"num_layers": 2, "importance": "taylor"}, "'spread' or 'block-influence'"),
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


def test_one_stack_of_layers_that_may_stand_anywhere_is_needed(causal_lm: ModelHandle) -> None:
    speech = WhisperConfig(
        vocab_size=19, d_model=16, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2, max_source_positions=4,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=4, max_target_positions=8,
        pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2,
    )  # fmt: skip
    scaled = GPT2Config(vocab_size=19, n_embd=16, n_layer=3, n_head=2, scale_attn_by_inverse_layer_idx=True)
    scaled.bos_token_id = scaled.eos_token_id = 2
    for model, complaint in (
        (WhisperForConditionalGeneration(speech), "an encoder-decoder has two stacks"),
        (GPT2LMHeadModel(scaled), "scaled by a layer's index"),
    ):
        with pytest.raises(UnsupportedError, match=complaint):
            DepthPruning(num_layers=1).check_model(model.config.to_dict())
        with pytest.raises(UnsupportedError, match=complaint):
            pruned(replace(causal_lm, model=model), num_layers=1)


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


TEXTS = ["the cat sat on the mat", "a good dog", "home", "the very bad cat ran home on the mat and was not good"]


def calibration_batches(handle: ModelHandle, batch_size: int, padding: str = "right") -> list[Batch]:
    tokenizer = handle.tokenizer
    parts = [TEXTS[start : start + batch_size] for start in range(0, len(TEXTS), batch_size)]
    return [
        dict(tokenizer(part, padding=True, padding_side=padding, return_tensors="pt", return_token_type_ids=False))
        for part in parts
    ]


def with_calibration(
    handle: ModelHandle, batches: Sequence[Batch], asked: list[Calibration] | None = None
) -> ModelHandle:
    def draw(calibration: Calibration) -> CalibrationSet:
        if asked is not None:
            asked.append(calibration)
        return CalibrationSet(batches, "testing", "train", "0", len(TEXTS), 0, 0)

    return replace(handle, supplies=Supplies(calibration=draw))


def influence(handle: ModelHandle, batches: Sequence[Batch]) -> list[float]:
    done = pruned(with_calibration(handle, batches), num_layers=2, importance="block-influence")
    return [float(value) for value in str(done.notes["block_influence"]).split(",")]


def states_of(handle: ModelHandle, text: str) -> list[torch.Tensor]:
    """The hidden states (length x hidden) that each layer is given, and what stands behind the last one."""
    seen: list[torch.Tensor] = []

    def see(_: Any, args: Any) -> None:
        seen.append(args[0][0])

    behind = handle.model.model.norm if hasattr(handle.model, "model") else handle.model.bert.pooler
    hooks = [module.register_forward_pre_hook(see) for module in (*layers_of(handle), behind)]
    with torch.no_grad():
        handle.model(**handle.tokenizer([text], return_tensors="pt", return_token_type_ids=False))
    for hook in hooks:
        hook.remove()
    return seen


def one_by_one(handle: ModelHandle) -> list[float]:
    """Block influence by its definition, a text at a time and without padding."""
    turned: list[list[float]] = [[] for _ in layers_of(handle)]
    for text in TEXTS:
        for index, (before, after) in enumerate(itertools.pairwise(states_of(handle, text))):
            for old, new in zip(before.double(), after.double(), strict=True):
                turned[index].append(1 - float(old @ new / (old.norm() * new.norm())))
    return [sum(values) / len(values) for values in turned]


def test_influence_is_one_minus_the_cosine() -> None:
    before = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    after = torch.tensor([[6.0, 8.0], [0.0, 2.0], [-5.0, 0.0], [1.0, 0.0]])
    expected = torch.tensor([0.0, 1.0, 2.0, 1 - 0.5**0.5], dtype=torch.float64)
    torch.testing.assert_close(influence_of_tokens(before, after), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("kind", ["causal", "classifier"])
def test_block_influence_is_that_of_the_definition_and_padding_has_no_part_in_it(
    causal_lm: ModelHandle, classifier: ModelHandle, kind: str, batch_size: int
) -> None:
    handle = causal_lm if kind == "causal" else classifier.copy()
    if kind == "classifier":
        with torch.no_grad():
            for layer in layers_of(handle):
                layer.output.dense.weight.mul_(20)
    found = influence(handle, calibration_batches(handle, batch_size))
    assert found == pytest.approx(one_by_one(handle), rel=2e-5)
    assert min(found) > 1e-3
    if kind == "causal":  # a BERT counts positions from the left, padding or not
        assert found == pytest.approx(influence(handle, calibration_batches(handle, batch_size, "left")), rel=2e-5)


def test_the_layers_of_least_influence_go_and_choices_are_nested() -> None:
    values = [0.5, 0.1, 0.3, 0.1, 0.9]
    assert [most_influential(values, count) for count in (5, 4, 3, 2, 1)] == [
        (0, 1, 2, 3, 4), (0, 2, 3, 4), (0, 2, 4), (0, 4), (4,),
    ]  # fmt: skip


def gpt2(causal_lm: ModelHandle) -> ModelHandle:
    config = GPT2Config(
        vocab_size=19, n_embd=32, n_layer=4, n_head=2, n_positions=32, bos_token_id=2, eos_token_id=3, pad_token_id=0,
        initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    return replace(causal_lm, model=GPT2LMHeadModel(config).eval())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_layer_that_adds_nothing_has_no_influence_and_goes_without_a_trace(causal_lm: ModelHandle, kind: str) -> None:
    handle = causal_lm.copy() if kind == "llama" else gpt2(causal_lm)
    present, asked = len(layers_of(handle)), list[Calibration]()
    layer = layers_of(handle)[2]
    with torch.no_grad():
        for part in (
            (layer.self_attn.o_proj, layer.mlp.down_proj) if kind == "llama" else (layer.attn.c_proj, layer.mlp.c_proj)
        ):
            for tensor in part.parameters():
                tensor.zero_()
    wanted = Calibration(num_samples=4, batch_size=2)
    supplied = with_calibration(handle, calibration_batches(handle, 2), asked)
    done = pruned(supplied, num_layers=present - 1, importance="block-influence", calibration=wanted)
    values = [float(value) for value in str(done.notes["block_influence"]).split(",")]
    assert abs(values[2]) < 1e-12
    assert sorted(values)[1] > 1e-3
    assert done.notes["kept_layers"] == ",".join(str(index) for index in range(present) if index != 2)
    assert torch.equal(logits(done), logits(handle))
    assert asked == [wanted]
    assert not any(module._forward_hooks for module in done.model.modules())
    ids = done.model.generate(**PROMPT, do_sample=False, min_new_tokens=9, max_new_tokens=9)
    again = done.model.generate(**PROMPT, do_sample=False, min_new_tokens=9, max_new_tokens=9, use_cache=False)
    assert torch.equal(ids, again)
    assert len(set(ids[:, 4:].flatten().tolist())) > 2, "one token over and over would prove little"


def test_block_influence_without_samples_is_refused(causal_lm: ModelHandle) -> None:
    with pytest.raises(UnsupportedError, match="needs calibration samples"):
        pruned(causal_lm, num_layers=2, importance="block-influence")
    with pytest.raises(CellError, match="hold no token"):
        pruned(with_calibration(causal_lm, []), num_layers=2, importance="block-influence")


def test_the_claim_names_the_stack_that_was_shortened(causal_lm: ModelHandle, classifier: ModelHandle) -> None:
    (claim,) = pruned(causal_lm, num_layers=2).claims
    assert (claim.step, claim.is_smaller, claim.modules) == ("depth-pruning", True, ("model.layers",))
    assert pruned(classifier, num_layers=2).claims[0].modules == ("bert.encoder.layer",)
    assert not pruned(causal_lm, num_layers=5).claims[0].is_smaller


@pytest.mark.parametrize("kind", ["smollm3", "qwen2"])
def test_what_a_configuration_says_of_each_layer_goes_with_the_layer(
    causal_lm: ModelHandle, tmp_path: Path, kind: str
) -> None:
    text = {
        "vocab_size": 19, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
        "initializer_range": 0.3,
    }  # fmt: skip
    torch.manual_seed(0)
    model: Any
    if kind == "smollm3":
        model = SmolLM3ForCausalLM(SmolLM3Config(**text, no_rope_layers=[1, 0, 0, 1]))
    else:
        types = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
        model = Qwen2ForCausalLM(Qwen2Config(**text, layer_types=types, use_sliding_window=True, sliding_window=2))
    done = pruned(replace(causal_lm, model=model.eval()), keep=(1, 2, 3))
    with quiet():
        done.model.save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(logits(replace(done, model=loaded)), logits(done))
    shifted = loaded.config.no_rope_layers if kind == "smollm3" else loaded.config.layer_types
    assert shifted == ([0, 0, 1] if kind == "smollm3" else ["sliding_attention", "full_attention", "sliding_attention"])
