"""A real server: a model exported to GGUF, served by llama.cpp, asked through its API, and held against PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
import torch
from llama_cpp_server import serving

from compressbench.core.protocols import Decoding
from compressbench.models.exports.gguf import FILE, write
from compressbench.models.handle import ModelHandle
from compressbench.models.load import load_model
from compressbench.recipe.schema import ModelSpec
from compressbench.runtimes.endpoint import Endpoint, EndpointSession
from compressbench.runtimes.torch_eager import TorchEager

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="needs llama.cpp: pip install xllamacpp"
)
PROMPTS = [
    "ROMEO:\n",
    "JULIET:\nO",
    "KING HENRY:\nNow",
    "First Citizen:\n",
    "MENENIUS:\nWhat",
    "The duke",
    "I am",
    "Enter",
]


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    return load_model(ModelSpec(id="embedded:shakespeare-lm"), "causal-lm")


@pytest.fixture(scope="module")
def url(handle: ModelHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("gguf")
    write(handle, folder)
    with serving(folder / FILE) as found:
        yield found


@pytest.fixture
def session(url: str, handle: ModelHandle) -> Iterator[EndpointSession]:
    found = Endpoint(url=url, model="m", timeout_s=60.0).prepare(handle, "cpu")
    yield found
    found.close()


def batch_of(handle: ModelHandle, prompt: str) -> dict[str, torch.Tensor]:
    ids = handle.tokenizer(prompt, return_tensors="pt")["input_ids"]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_llama_cpp_writes_what_pytorch_writes(session: EndpointSession, handle: ModelHandle) -> None:
    """Greedy, token for token. One text may take another way: keys and values are in float16 there."""
    here = TorchEager().prepare(handle, "cpu")
    batches = [batch_of(handle, prompt) for prompt in PROMPTS]
    pairs = [(session.generate(batch, 24), here.generate(batch, 24)) for batch in batches]
    assert all(ours.shape == theirs.shape for ours, theirs in pairs)
    assert sum(torch.equal(ours, theirs) for ours, theirs in pairs) >= len(pairs) - 1


def test_lengths_are_forced_and_every_token_is_stamped(session: EndpointSession, handle: ModelHandle) -> None:
    stamps: list[int] = []
    found = session.generate(batch_of(handle, "ROMEO:\n"), 48, lambda: stamps.append(len(stamps)))
    assert found.shape[1] == batch_of(handle, "ROMEO:\n")["input_ids"].shape[1] + 48
    assert len(stamps) == 48


def test_it_says_what_it_is_and_that_it_read_the_prompts_as_they_were_meant(
    session: EndpointSession, handle: ModelHandle
) -> None:
    [written] = session.write(batch_of(handle, "ROMEO:\n"), Decoding(max_new_tokens=8))
    assert 1 <= len(written.tokens) <= 8
    found = session.deployed
    assert found.engine.startswith("llamacpp")
    assert "prompt_tokens_differ" not in found.notes
    assert found.notes["server"] == "this machine (loopback)"
