"""Generation as it is timed: one stamp per token at the right moment, and greedy whatever a model's files ask for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from transformers.generation.streamers import BaseStreamer

from compressbench.core.protocols import Session
from compressbench.models.handle import ModelHandle
from compressbench.runtimes.torch_eager import TorchEager, TorchSession, _Streamer
from compressbench.testing import tiny_causal_lm

IDS = torch.tensor([[2, 4, 6, 8], [2, 5, 7, 9]])
BATCH = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}

CONFLICTS: dict[str, dict[str, Any]] = {
    "sampling": {"do_sample": True, "temperature": 5.0, "top_k": 3},
    "beams": {"num_beams": 3},
    "a forced end": {"forced_eos_token_id": 11},
    "a forced beginning": {"forced_bos_token_id": 11},
    "penalties": {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1},
    "ruled-out tokens": {"suppress_tokens": list(range(4, 15))},
    "a time limit": {"max_time": 0.0},
    "a length": {"max_length": 5},
    "a dictionary": {"return_dict_in_generate": True, "output_scores": True},
    "several answers": {"num_return_sequences": 2, "num_beams": 2},
    "no cache": {"use_cache": False},
    "a static cache": {"cache_implementation": "static"},
    "speculation": {"prompt_lookup_num_tokens": 2},
    "guidance": {"guidance_scale": 3.0},
}


@pytest.fixture(scope="module")
def causal_lm() -> ModelHandle:
    """Weights so large that what was generated before changes what comes next."""
    handle = tiny_causal_lm(num_layers=2, tied=False)
    with torch.no_grad():
        for parameter in handle.model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
    return handle


@contextmanager
def config_of(model: Any, **options: Any) -> Iterator[Any]:
    its_own = model.generation_config
    model.generation_config = transformers.GenerationConfig(
        **{"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, **options}
    )
    try:
        yield model.generation_config
    finally:
        model.generation_config = its_own


@contextmanager
def forward_lengths(model: Any) -> Iterator[list[int]]:
    """The length of the input of every forward pass, in order."""
    found: list[int] = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _, given, made: found.append(given[0].shape[1]))
    yield found
    hook.remove()


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("num_tokens", [1, 2, 9])
def test_every_token_is_told_right_after_the_pass_that_made_it(
    causal_lm: ModelHandle, rows: int, num_tokens: int
) -> None:
    session: Session = TorchEager().prepare(causal_lm, "cpu")
    batch = {name: tensor[:rows] for name, tensor in BATCH.items()}
    told = list[int]()
    with forward_lengths(causal_lm.model) as passes:
        found = session.generate(batch, num_tokens, lambda: told.append(len(passes)))
    assert told == list(range(1, num_tokens + 1)), "one pass per token, and none before the prompt has been read"
    assert passes == [4] + [1] * (num_tokens - 1), "with a cache, a pass after the first reads one token"
    assert torch.equal(found, session.generate(batch, num_tokens)), "being told changes nothing"
    assert found.shape == (rows, 4 + num_tokens)


def test_the_streamer_has_the_members_that_transformers_calls() -> None:
    wanted = {name: value for name, value in vars(BaseStreamer).items() if not name.startswith("_")}
    assert wanted.keys() == {"put", "end"}
    for name, value in wanted.items():
        assert list(inspect.signature(getattr(_Streamer, name)).parameters) == list(inspect.signature(value).parameters)


@pytest.mark.parametrize("conflict", CONFLICTS)
def test_generation_is_greedy_whatever_the_model_asks_for(causal_lm: ModelHandle, conflict: str) -> None:
    session = TorchEager().prepare(causal_lm, "cpu")
    with config_of(causal_lm.model):
        expected = session.generate(BATCH, 6)
    told = list[int]()
    with config_of(causal_lm.model, **CONFLICTS[conflict]) as its_own:
        before = its_own.to_dict()
        with forward_lengths(causal_lm.model) as passes:
            found = TorchSession(causal_lm.model, "cpu").generate(BATCH, 6, lambda: told.append(1))
        assert causal_lm.model.generation_config is its_own, "what a saved model says stays as it is"
        assert its_own.to_dict() == before
    assert torch.equal(found, expected)
    assert len(told) == 6
    assert passes == [4, 1, 1, 1, 1, 1]


def test_no_ending_of_several_is_chosen(causal_lm: ModelHandle) -> None:
    with config_of(causal_lm.model, eos_token_id=None):
        free = TorchSession(causal_lm.model, "cpu").generate(BATCH, 12)[:, 4:]
    likeliest = [int(row[0]) for row in free]
    with config_of(causal_lm.model, eos_token_id=[3, *likeliest]):
        found = TorchSession(causal_lm.model, "cpu").generate(BATCH, 12)[:, 4:]
    assert found.shape == (2, 12)
    assert not {3, *likeliest} & set(found.flatten().tolist())


def test_a_configuration_that_switched_the_cache_off_does_not_slow_generation(causal_lm: ModelHandle) -> None:
    causal_lm.model.config.use_cache = False  # as training leaves it
    try:
        with forward_lengths(causal_lm.model) as passes:
            TorchSession(causal_lm.model, "cpu").generate(BATCH, 3)
    finally:
        causal_lm.model.config.use_cache = True
    assert passes == [4, 1, 1]


def test_another_number_of_tokens_is_another_configuration(causal_lm: ModelHandle) -> None:
    session = TorchEager().prepare(causal_lm, "cpu")
    assert [session.generate(BATCH, count).shape[1] for count in (3, 3, 5, 1)] == [7, 7, 9, 5]


def test_a_generation_that_fails_leaves_the_models_own_configuration(causal_lm: ModelHandle) -> None:
    def fail() -> None:
        raise MemoryError

    its_own = causal_lm.model.generation_config
    with pytest.raises(MemoryError):
        TorchEager().prepare(causal_lm, "cpu").generate(BATCH, 3, fail)
    assert causal_lm.model.generation_config is its_own


def test_a_model_without_a_cache_generates_as_many_tokens() -> None:
    torch.manual_seed(0)
    config = transformers.OpenAIGPTConfig(vocab_size=19, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    session = TorchSession(transformers.OpenAIGPTLMHeadModel(config).eval(), "cpu")
    told = list[int]()
    found = session.generate(BATCH, 5, lambda: told.append(1))
    ids = IDS
    for _ in range(5):
        ids = torch.cat([ids, session({"input_ids": ids})[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(found, ids)
    assert len(told) == 5
    assert session.kv_cache_bytes(BATCH, 5) is None


def test_the_embedded_language_model_generates_what_greedy_search_finds() -> None:
    from compressbench.models.load import load_model
    from compressbench.recipe.schema import ModelSpec

    handle = load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm", device="cpu")
    session = TorchEager().prepare(handle, "cpu")
    ids = handle.tokenizer("ROMEO: But, soft! what light", return_tensors="pt")["input_ids"]
    told = list[int]()
    found = session.generate({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, 10, lambda: told.append(1))
    expected = ids
    for _ in range(10):
        logits = session({"input_ids": expected})[:, -1].clone()
        logits[:, handle.model.config.eos_token_id] = -torch.inf
        expected = torch.cat([expected, logits.argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(found, expected)
    assert len(told) == 10
