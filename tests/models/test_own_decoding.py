"""The loop of our own decodes as transformers' generate does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressbench.core.protocols import Batch, Decoding
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.models.own_decoding import greedy, special_tokens, write
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.torch_eager import TorchSession
from compressbench.tasks.batching import padded


@pytest.fixture(scope="module")
def shakespeare() -> ModelHandle:
    return load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm", device="cpu")


class ModelSteps:
    """The steps of a model of transformers with its own cache."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def start(self, batch: Batch, num_tokens: int) -> torch.Tensor:
        self._mask = batch["attention_mask"]
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
        found = self._model(**batch, position_ids=positions, use_cache=True)
        self._cache, self._at = found.past_key_values, positions[:, -1:]
        last: torch.Tensor = found.logits[:, -1]
        return last

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        self._at = self._at + 1
        found = self._model(
            input_ids=tokens[:, None],
            attention_mask=self._mask,
            position_ids=self._at,
            past_key_values=self._cache,
            use_cache=True,
        )
        last: torch.Tensor = found.logits[:, -1]
        return last


def test_greedy_tokens_are_those_of_the_torch_runtime(shakespeare: ModelHandle) -> None:
    prompts = torch.randint(3, 400, (3, 12), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": prompts, "attention_mask": torch.ones_like(prompts)}
    stamps: list[None] = []
    special = special_tokens(shakespeare.model, shakespeare.tokenizer)
    found = greedy(ModelSteps(shakespeare.model), batch, 20, special.end, lambda: stamps.append(None))
    expected = TorchSession(shakespeare.model, "cpu", shakespeare.tokenizer).generate(batch, 20)
    assert found.tolist() == expected.tolist()
    assert len(stamps) == 20


def test_a_token_that_ends_a_text_is_never_chosen_where_the_length_is_fixed(shakespeare: ModelHandle) -> None:
    prompts = torch.tensor([[5, 6, 7]])
    batch = {"input_ids": prompts, "attention_mask": torch.ones_like(prompts)}
    steps = ModelSteps(shakespeare.model)
    favourite = int(greedy(steps, batch, 1, ())[0, -1])
    assert int(greedy(steps, batch, 1, (favourite,))[0, -1]) != favourite


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(max_new_tokens=24),
        Decoding(max_new_tokens=24, until=("\n", "the")),
        Decoding(max_new_tokens=24, temperature=0.9, top_p=0.9, num_samples=3, seed=4, until=(",",)),
    ],
    ids=["greedy", "stop", "sampled"],
)
def test_texts_are_those_of_the_torch_runtime(shakespeare: ModelHandle, decoding: Decoding) -> None:
    texts = ["ROMEO:\nI will", "What is", "O, that this too too solid flesh would melt"]
    prompts = [shakespeare.tokenizer(text)["input_ids"] for text in texts]
    batch = padded(prompts, side="left")
    special = special_tokens(shakespeare.model, shakespeare.tokenizer)
    found = write(ModelSteps(shakespeare.model), shakespeare.tokenizer, special, batch, decoding)
    expected = TorchSession(shakespeare.model, "cpu", shakespeare.tokenizer).write(batch, decoding)
    assert [each.tokens for each in found] == [each.tokens for each in expected]
    assert [each.has_ended for each in found] == [each.has_ended for each in expected]
