from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from compressbench.core.errors import UnsupportedError
from compressbench.models.mean_pool import MeanPoolForSequenceClassification
from compressbench.models.parts import matrix
from compressbench.models.quiet import quiet
from compressbench.models.widths import (
    FAMILIES,
    HeadCounts,
    Part,
    couplings,
    cut,
    describe,
    family_of,
    feed_forward_sizes,
    head_changes,
    head_counts,
)

TEXT = {
    "vocab_size": 19, "hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 24, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
DECODER = {**TEXT, "num_key_value_heads": 2, "head_dim": 12}
IMAGE = {
    "hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
WHISPER = {
    "vocab_size": 19, "d_model": 48, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 32, "num_mel_bins": 8,
    "max_source_positions": 8, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
    "decoder_start_token_id": 2,
}  # fmt: skip
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", DECODER),
    "mistral": ("MistralForCausalLM", DECODER),
    "qwen2": ("Qwen2ForCausalLM", {**TEXT, "num_key_value_heads": 2}),
    "qwen3": ("Qwen3ForCausalLM", DECODER),
    "smollm3": ("SmolLM3ForCausalLM", {**TEXT, "num_key_value_heads": 2}),
    "gemma": ("GemmaForCausalLM", DECODER),
    "gemma2": ("Gemma2ForCausalLM", DECODER),
    "bert": ("BertForSequenceClassification", TEXT),
    "roberta": ("RobertaForSequenceClassification", TEXT),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", TEXT),
    "camembert": ("CamembertForSequenceClassification", TEXT),
    "electra": ("ElectraForSequenceClassification", {**TEXT, "embedding_size": 16}),
    "mpnet": ("MPNetForSequenceClassification", TEXT),
    "mean-pool-bert": ("", TEXT),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": 19, "dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 40},
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {
            "vocab_size": 19, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 24, "n_inner": 40,
            "bos_token_id": 2, "eos_token_id": 3,
        },
    ),
    "vit": ("ViTForImageClassification", IMAGE),
    "deit": ("DeiTForImageClassification", IMAGE),
    "whisper": ("WhisperForConditionalGeneration", WHISPER),
}  # fmt: skip
WITH_HEADS = [kind for kind, family in FAMILIES.items() if family.heads]
WITHOUT_HEADS = [kind for kind, family in FAMILIES.items() if not family.heads]


def tiny(kind: str) -> Any:
    name, options = TINY[kind]
    made: Any = getattr(transformers, name) if name else MeanPoolForSequenceClassification
    torch.manual_seed(0)
    with quiet():
        return made(made.config_class(**options)).eval()


def blank(model: Any, **changes: int) -> Any:
    """A model without weights from the changed configuration, as a file would describe it."""
    config = type(model.config).from_dict({**copy.deepcopy(model.config.to_dict()), **changes})
    with quiet(), torch.device("meta"):
        return type(model)(config)


def test_every_family_is_tried_here() -> None:
    assert set(TINY) == set(FAMILIES)


@pytest.mark.parametrize("kind", FAMILIES)
def test_neurons_are_found_in_every_layer_and_cut_as_the_configuration_says(kind: str) -> None:
    model = tiny(kind)
    sizes = feed_forward_sizes(model.config.to_dict())
    assert sizes == ({"encoder_ffn_dim": 40, "decoder_ffn_dim": 32} if kind == "whisper" else {next(iter(sizes)): 40})
    changes = dict.fromkeys(sizes, 24)
    found = couplings(model, changes)
    assert len(found) == (3 if kind == "whisper" else 2), "one for each layer"
    for coupled in found:
        for part in coupled.parts:
            cut(part, torch.arange(24))
            assert matrix(part.module).shape == ((24, 48) if part.is_output else (48, 24))
    describe(model, changes)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in blank(model).state_dict().items()} == shapes


@pytest.mark.parametrize("kind", WITH_HEADS)
def test_heads_are_found_in_every_layer_and_cut_as_the_configuration_says(kind: str) -> None:
    model = tiny(kind)
    config = model.config.to_dict()
    counts = head_counts(config)
    assert counts == (HeadCounts(4, 1, 12) if kind in {"vit", "deit"} else HeadCounts(2, 2, 12))
    half = counts.groups // 2
    changes = head_changes(config, counts, half)
    found = couplings(model, changes)
    assert len(found) == 2
    for coupled in found:
        for part in coupled.parts:
            cut(part, torch.arange(half))
        query, key, value, output = (matrix(part.module).shape for part in coupled.parts)
        assert (query, output) == ((24, 48), (48, 24))
        assert key == value == (half * 12, 48)
    describe(model, changes)
    assert model.config.head_dim == 12
    assert model.config.num_attention_heads == 2


@pytest.mark.parametrize("kind", WITH_HEADS)
def test_a_number_of_heads_is_refused_exactly_where_the_configuration_refuses_it(kind: str) -> None:
    model = tiny(kind)
    wide = {**model.config.to_dict(), "num_attention_heads": 16, FAMILIES[kind].heads.groups: 16, "head_dim": 4}  # type: ignore[union-attr]
    counts = head_counts(wide)
    assert counts == HeadCounts(16, 1, 4)
    for groups in range(1, 16):
        if kind in {"llama", "gemma2"} and 48 % groups:
            with pytest.raises(UnsupportedError, match=r"Set num_heads to one of \[1, 2, 3, 4, 6, 8, 12\]\."):
                head_changes(wide, counts, groups)
            with pytest.raises(StrictDataclassError):
                type(model.config).from_dict({**wide, "num_attention_heads": groups})
            continue
        described = blank(model, **{**wide, **head_changes(wide, counts, groups)}).state_dict()
        queries = [tensor for name, tensor in described.items() if name.endswith("q_proj.weight")]
        assert [tensor.shape for tensor in queries] == [(groups * 4, 48)] * 2


@pytest.mark.parametrize("kind", WITHOUT_HEADS)
def test_where_heads_are_refused_no_configuration_makes_the_attention_smaller(kind: str) -> None:
    model = tiny(kind)
    with pytest.raises(UnsupportedError, match=r"derives the size of a head from hidden_size.*ffn_ratio"):
        head_counts(model.config.to_dict())
    names = {
        "distilbert": ["n_heads"],
        "gpt2": ["n_head"],
        "whisper": ["encoder_attention_heads", "decoder_attention_heads"],
    }
    fewer = dict.fromkeys(names.get(kind, ["num_attention_heads"]), 2)
    described = blank(model, **fewer, head_dim=12).state_dict()
    other = [name for name, tensor in model.state_dict().items() if described[name].shape != tensor.shape]
    assert other == (["mpnet.encoder.relative_attention_bias.weight"] if kind == "mpnet" else [])


def test_cutting_keeps_the_named_groups_in_both_layouts() -> None:
    torch.manual_seed(0)
    linear, stored_transposed = nn.Linear(12, 6), transformers.pytorch_utils.Conv1D(6, 12)
    with torch.no_grad():
        stored_transposed.weight.copy_(linear.weight.T)
        stored_transposed.bias.copy_(linear.bias)
    weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    linear.requires_grad_(False)
    for module in (linear, stored_transposed):
        cut(Part("", module, is_output=True, block=2), torch.tensor([0, 2]))
        cut(Part("", module, is_output=False, block=3), torch.tensor([1, 3]))
        assert torch.equal(matrix(module), weight[[0, 1, 4, 5]][:, [3, 4, 5, 9, 10, 11]])
        assert torch.equal(module.bias, bias[[0, 1, 4, 5]])
        assert module(torch.ones(1, 6)).shape == (1, 4)
    assert (linear.in_features, linear.out_features) == (6, 4)
    assert (stored_transposed.nx, stored_transposed.nf) == (6, 4)
    assert not linear.weight.requires_grad
    assert stored_transposed.weight.requires_grad


def test_what_gpt2_leaves_out_is_four_times_its_width() -> None:
    assert feed_forward_sizes({"model_type": "gpt2", "n_embd": 48, "n_inner": None}) == {"n_inner": 192}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**TINY["gpt2"][1], "n_inner": None}))
    assert [coupled.num_groups for coupled in couplings(model, {"n_inner"})] == [192, 192]


def test_what_a_configuration_does_not_say_is_not_guessed() -> None:
    assert feed_forward_sizes({"model_type": "bert"}) == {}
    assert feed_forward_sizes({"model_type": "gpt2"}) == {}
    assert head_counts({"model_type": "mistral", "num_attention_heads": 4, "hidden_size": 48}) is None
    old_llama = {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": None, "hidden_size": 48}
    assert head_counts(old_llama) == HeadCounts(4, 1, 12)


@pytest.mark.parametrize("config", [{"model_type": "t5"}, {"model_type": "albert"}, {}])
def test_unknown_kinds_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=r"not known how to make this kind of model narrower.*Known: bert, "):
        family_of(config)


def test_a_model_that_is_not_as_its_configuration_says_is_refused() -> None:
    model = tiny("bert")
    layer = model.bert.encoder.layer[1]
    layer.output.dense = nn.Linear(39, 48)
    with pytest.raises(UnsupportedError, match=r"layer\.1\.output\.dense: the configuration says 40 inputs \(got 39\)"):
        couplings(model, {"intermediate_size"})
    layer.output.dense = nn.Sequential(nn.Linear(40, 48))
    with pytest.raises(UnsupportedError, match="only plain linear modules can be cut"):
        couplings(model, {"intermediate_size"})
    del layer.output.dense
    with pytest.raises(UnsupportedError, match=r"has no bert\.encoder\.layer\.1\.output\.dense"):
        couplings(model, {"intermediate_size"})
    model.config.num_hidden_layers = 3
    with pytest.raises(UnsupportedError, match=r"one list 'layer' of 3 layers \(got bert\.encoder\.layer of 2\)"):
        couplings(model, {"intermediate_size"})


def test_widths_that_no_configuration_describes_are_refused() -> None:
    model = tiny("bert")
    for part in couplings(model, {"intermediate_size"})[0].parts:
        cut(part, torch.arange(24))  # of one layer only
    with pytest.raises(UnsupportedError, match=r"describes these widths \(got bert\.encoder\.layer\.1\.intermediate"):
        describe(model, {"intermediate_size": 24})
    with pytest.raises(UnsupportedError, match="the configuration refuses these widths"):
        describe(tiny("llama"), {"num_attention_heads": 5})
