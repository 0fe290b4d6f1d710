from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from compressbench.core.errors import ModelError
from compressbench.models import config, random_model
from compressbench.models.config import RANDOM, model_folder, random_config, read_config, weight_format
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec


def test_every_random_model_has_a_configuration_that_a_plan_can_read() -> None:
    for name in RANDOM:
        found = read_config(f"random:{name}")
        assert found is not None
        assert found["architectures"] == ["LlamaForCausalLM"]
        assert weight_format(f"random:{name}", "float32") == "float32"
        assert model_folder(f"random:{name}") is None


def test_an_unknown_one_is_told_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="Did you mean 'llama-125m'"):
        read_config("random:lama-125m")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same configuration with little in it."""
    fields = json.loads(random_config("random:llama-125m").read_text())
    fields |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    fields |= {"num_key_value_heads": 2, "vocab_size": 1024}
    (tmp_path / "small.json").write_text(json.dumps(fields))
    monkeypatch.setattr(random_model, "random_config", lambda _: tmp_path / "small.json")
    assert config.is_random("random:llama-125m")


@pytest.mark.usefixtures("small")
def test_the_same_weights_are_made_every_time_and_torchs_own_numbers_go_on() -> None:
    spec = ModelSpec(id="random:llama-125m")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one = load_model(spec, "causal-lm")
    assert torch.equal(torch.rand(3), expected)
    other = load_model(spec, "causal-lm")
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))
    assert one.source.revision.startswith("random weights (seed 0) of config sha256:")
    assert len(one.tokenizer) <= one.model.config.vocab_size
    assert one.weights == "float32"


def test_it_is_a_language_model_only() -> None:
    with pytest.raises(ModelError, match="can't be used as sequence-classification"):
        load_model(ModelSpec(id="random:llama-125m"), "sequence-classification")


@pytest.mark.usefixtures("small")
def test_a_model_without_a_configuration_apart_is_made_though_no_weights_are_needed() -> None:
    found = load_model(ModelSpec(id="random:llama-125m"), "causal-lm", weights=False)
    assert found.source.revision.startswith("random weights")
