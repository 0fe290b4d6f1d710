from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from compressbench.core.errors import UnsupportedError
from compressbench.models.handle import ModelHandle
from compressbench.models.parts import (
    bias_of,
    choose_linears,
    layer_stack,
    matches,
    matrix,
    replace_module,
    target_linears,
)
from compressbench.testing import tiny_causal_lm, tiny_classifier


@pytest.fixture(scope="module")
def classifier() -> ModelHandle:
    return tiny_classifier()


@pytest.fixture(scope="module")
def tied() -> ModelHandle:
    return tiny_causal_lm(num_layers=2)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("classifier", "classifier", True),
        ("pooler", "bert.pooler.dense", True),
        ("dense", "bert.pooler.dense", True),
        ("bert.pooler.dense", "bert.pooler.dense", True),
        ("pooler.dense", "bert.pooler.dense", True),
        ("self.query", "bert.encoder.layer.0.attention.self.query", True),
        ("dens", "bert.pooler.dense", False),
        ("pool", "bert.pooler.dense", False),
        ("1", "bert.encoder.layer.11.output", False),
        ("a.c", "a.b.c", False),
        (r"re:.*\.[01]\.", "bert.encoder.layer.1.output", True),
        (r"re:.*\.[01]\.", "bert.encoder.layer.11.output", False),
        ("re:encoder", "bert.encoder", False),
        ("a.b", "axb", False),
    ],
)
def test_a_pattern_means_whole_parts_of_a_name_or_a_regular_expression(pattern: str, name: str, expected: bool) -> None:
    assert matches(name, [pattern]) is expected
    assert matches(name, ["nothing", pattern]) is expected
    assert not matches(name, [])


def test_without_targets_every_linear_module_but_the_heads_is_chosen(classifier: ModelHandle) -> None:
    linear = {name for name, module in classifier.model.named_modules() if isinstance(module, nn.Linear)}
    assert set(target_linears(classifier.model)) == linear - {"classifier", "bert.pooler.dense"}
    assert len(target_linears(classifier.model)) == len(linear) - 2


def test_targets_and_exceptions_narrow_the_choice(classifier: ModelHandle) -> None:
    model = classifier.model
    queries = target_linears(model, ["query"])
    assert set(queries) == {f"bert.encoder.layer.{index}.attention.self.query" for index in range(2)}
    assert set(target_linears(model, ["query"], [r"re:.*\.0\."])) == {"bert.encoder.layer.1.attention.self.query"}
    assert set(target_linears(model, ["classifier"])) == {"classifier"}, "a head that is named is taken"
    with pytest.raises(UnsupportedError, match="no linear module of BertForSequenceClassification"):
        target_linears(model, ["query"], ["self"])
    with pytest.raises(UnsupportedError, match="LayerNorm"):
        target_linears(model, ["LayerNorm"])


def test_a_head_that_shares_its_weights_is_never_chosen_and_one_of_its_own_only_by_name(tied: ModelHandle) -> None:
    with pytest.raises(UnsupportedError):
        target_linears(tied.model, ["lm_head"])
    untied = tiny_causal_lm(num_layers=1, tied=False).model
    assert set(target_linears(untied, ["lm_head"])) == {"lm_head"}
    assert "lm_head" not in target_linears(untied)


def test_any_two_modules_that_share_a_tensor_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    assert set(target_linears(model)) == {"1"}


def test_the_stack_of_layers_is_found_by_its_length(classifier: ModelHandle, tied: ModelHandle) -> None:
    owner, name, layers = layer_stack(classifier.model)
    assert getattr(owner, name) is layers is classifier.model.bert.encoder.layer
    assert layer_stack(tied.model)[2] is tied.model.model.layers


def test_no_stack_and_two_stacks_are_refused(classifier: ModelHandle) -> None:
    class Odd(nn.Module):
        def __init__(self, *lengths: int) -> None:
            super().__init__()
            self.config: Any = classifier.model.config
            self.stacks = nn.ModuleDict(
                {str(i): nn.ModuleList([nn.Identity()] * n) for i, n in enumerate(lengths)}
            )  # fmt: skip

    assert len(layer_stack(Odd(2, 3))[2]) == 2
    for lengths, count in (((), 0), ((3, 1), 0), ((2, 2), 2)):
        with pytest.raises(UnsupportedError, match=f"has {count} stacks of 2 layers"):
            layer_stack(Odd(*lengths))


def test_a_replaced_module_stands_where_the_old_one_stood() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2))
    for name in ("0.0", "1"):
        new = nn.Identity()
        replace_module(model, name, new)
        assert model.get_submodule(name) is new


def test_gpt2s_transposed_layers_are_linear_too_and_are_seen_as_out_by_in() -> None:
    config = GPT2Config(vocab_size=19, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=2, eos_token_id=3)
    model = GPT2LMHeadModel(config)
    assert len(layer_stack(model)[2]) == 2
    chosen = target_linears(model)
    assert len(chosen) == 2 * 4
    fused = chosen["transformer.h.0.attn.c_attn"]
    assert matrix(fused).shape == (3 * 16, 16)
    matrix(fused)[5].zero_()
    x = torch.randn(1, 3, 16)
    expected = torch.nn.functional.linear(x, matrix(fused), bias_of(fused))
    assert torch.allclose(fused(x), expected, atol=1e-6)
    assert torch.count_nonzero(fused.weight[:, 5]) == 0, "the view writes through"


def test_what_is_left_out_says_why(tied: ModelHandle) -> None:
    model = tied.model
    choice = choose_linears(model, (), ["mlp"])
    assert choice.left_out["lm_head"] == "its weights are tied to another module's"
    assert choice.left_out["model.layers.0.mlp.up_proj"] == "ignored by the recipe"
    assert choose_linears(model, ["mlp"]).left_out["model.layers.0.self_attn.q_proj"] == "not among the targets"
