"""Bytes of the key-value cache against the closed form, and against the cache that a generation leaves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from compressbench.models.kv_cache import HoldsCache, cache_bytes
from compressbench.runtimes.torch_eager import TorchEager, TorchSession
from compressbench.testing import FakeClock, FakeSession, tiny_causal_lm, tiny_classifier


def batch(rows: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.arange(rows * length).view(rows, length) % 15 + 4
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def llama(num_layers: int, num_kv_heads: int, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=19, hidden_size=32, intermediate_size=32, num_hidden_layers=num_layers, num_attention_heads=4,
        num_key_value_heads=num_kv_heads, max_position_embeddings=64, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval().to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("num_layers", "num_kv_heads"), [(1, 4), (3, 2), (2, 1)])
@pytest.mark.parametrize(("rows", "length", "num_tokens"), [(1, 5, 0), (1, 5, 1), (3, 8, 9), (2, 1, 4)])
def test_the_cache_is_twice_layers_times_heads_times_width_times_positions_times_bytes(
    dtype: torch.dtype, num_layers: int, num_kv_heads: int, rows: int, length: int, num_tokens: int
) -> None:
    model = llama(num_layers, num_kv_heads, dtype)
    positions = length + max(0, num_tokens - 1)
    expected = 2 * num_layers * num_kv_heads * (32 // 4) * positions * dtype.itemsize * rows
    assert cache_bytes(model, batch(rows, length), num_tokens) == expected


@pytest.mark.parametrize("num_tokens", [1, 2, 7])
def test_it_is_what_a_generation_leaves(num_tokens: int) -> None:
    model, given = llama(2, 2, torch.float32), batch(2, 6)
    options = {"min_new_tokens": num_tokens, "max_new_tokens": num_tokens, "do_sample": False}
    left = model.generate(**given, **options, return_dict_in_generate=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in left.layers)
    assert cache_bytes(model, given, num_tokens) == held


@pytest.mark.parametrize(("num_tokens", "positions"), [(0, 4), (2, 5), (3, 5), (9, 5)])
def test_a_sliding_window_bounds_the_cache(num_tokens: int, positions: int) -> None:
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=19, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6,
    )  # fmt: skip
    model = transformers.MistralForCausalLM(config).eval()
    assert cache_bytes(model, batch(1, 4), num_tokens) == 2 * 2 * 2 * 4 * positions * 4


def test_a_generation_that_just_fits_into_the_model_has_a_size() -> None:
    """The last token is never fed back: 10 + 7 tokens need 16 positions."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=19, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=3
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    assert TorchSession(model, "cpu").generate(batch(1, 10), 7).shape == (1, 17)
    assert cache_bytes(model, batch(1, 10), 7) == 2 * 2 * 16 * 16 * 4


def test_inputs_of_every_kind_are_lengthened() -> None:
    model, given = llama(1, 4, torch.float32), batch(2, 4)
    given["attention_mask"][0, 0] = 0
    given["position_ids"] = torch.arange(4).expand(2, -1)
    assert cache_bytes(model, given, 3) == 2 * 4 * 8 * 6 * 4 * 2
    assert given["input_ids"].shape == (2, 4)


def test_keys_that_layers_share_are_counted_once() -> None:
    class Sharing(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, use_cache: bool = False) -> Any:
            shared, its_own = torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 8)
            cache = {"layers": [(shared, its_own), [shared.detach(), torch.zeros(1, 2, 5, 8)]], "seen": torch.tensor(5)}
            return transformers.utils.ModelOutput(past_key_values=cache)

    assert cache_bytes(Sharing(), batch(1, 5), 0) == 3 * 2 * 5 * 8 * 4


def test_a_model_that_hands_out_no_cache_has_no_size() -> None:
    assert cache_bytes(tiny_classifier(num_layers=1).model, batch(1, 5), 0) is None
    config = transformers.OpenAIGPTConfig(vocab_size=19, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    assert cache_bytes(transformers.OpenAIGPTLMHeadModel(config).eval(), batch(1, 5), 3) is None


def test_only_some_sessions_can_say_what_their_cache_holds() -> None:
    session = TorchEager().prepare(tiny_causal_lm(num_layers=1), "cpu")
    assert isinstance(session, HoldsCache)
    assert session.kv_cache_bytes(batch(2, 5), 4) == 2 * 1 * 2 * 16 * 8 * 4 * 2
    assert not isinstance(FakeSession(FakeClock(), [0.0]), HoldsCache)
