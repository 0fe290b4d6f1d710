from __future__ import annotations

from typing import Any

import pytest
import torch

from compressbench.core.padding import chunks_by_length
from compressbench.core.protocols import SharesPrefix
from compressbench.models import shared_prefix
from compressbench.models.shared_prefix import can_share_prefix
from compressbench.runtimes.torch_eager import TorchEager, TorchSession
from compressbench.testing import tiny_causal_lm

VOCABULARY = 19


def llama() -> Any:
    return tiny_causal_lm(num_layers=2).model


def gpt2() -> Any:
    """Learned positions, of which there are exactly as many as the longest sequence reads."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=40, n_embd=32, n_layer=2, n_head=4, bos_token_id=2, eos_token_id=3
    )
    return GPT2LMHeadModel(config).eval()


def mistral(window: int | None) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=window, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    return MistralForCausalLM(config).eval()


def random_tokens(count: int, seed: int) -> list[int]:
    return torch.randint(0, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def questions() -> tuple[list[list[int]], list[int], list[int]]:
    """Sequences, how many of their last tokens are scored, and their groups: of one, of one token, alike, and unlike."""
    beginnings = [random_tokens(length, seed) for seed, length in enumerate((30, 12, 20, 1, 25, 17))]
    endings = [(10, 3, 7, 1), (1, 1), (9,), (5, 6), (2, 15, 4), (1, 3)]
    sequences, num_last, groups = [], [], []
    for group, (beginning, lengths) in enumerate(zip(beginnings, endings, strict=True)):
        for number, length in enumerate(lengths):
            sequences.append([*beginning, *random_tokens(length, 100 * group + number)])
            num_last.append(length)
            groups.append(group)
    alike = random_tokens(30, 7)  # the difference is in the context, and what follows it is scored
    for token in (4, 5):
        sequences.append([*alike[:20], token, *alike[20:]])
        num_last.append(10)
        groups.append(len(beginnings))
    return sequences, num_last, groups


def one_by_one(model: Any, sequences: list[list[int]], num_last: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        found = [model(input_ids=torch.tensor([tokens])).logits[0] for tokens in sequences]
    return torch.cat([logits[-count - 1 : -1] for logits, count in zip(found, num_last, strict=True)])


def shared(session: TorchSession, *asked: Any) -> torch.Tensor:
    parts = session.last_logits(*asked)
    assert parts is not None
    parts = list(parts)
    places = [place for part, _ in parts for place in part]
    assert sorted(places) == list(range(sum(asked[1]))), "each place comes once"
    whole = torch.empty(len(places), VOCABULARY)
    whole[places] = torch.cat([logits for _, logits in parts])
    return whole


@pytest.mark.parametrize("make", [llama, gpt2, lambda: mistral(None)], ids=["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("pass_tokens", [0, 64, 100_000])
def test_shared_prefixes_change_no_logit(make: Any, pass_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_prefix, "chunks_by_length", lambda lengths: chunks_by_length(lengths, pass_tokens))
    model, asked = make(), questions()
    found = shared(TorchSession(model, "cpu"), *asked)
    torch.testing.assert_close(found, one_by_one(model, *asked[:2]), atol=1e-5, rtol=1e-4)


def test_a_group_is_only_a_hint() -> None:
    sequences, num_last, groups = questions()
    session = TorchSession(llama(), "cpu")
    everything = shared(session, sequences, num_last, [0] * len(groups))
    nothing = shared(session, sequences, num_last, list(range(len(groups))))
    torch.testing.assert_close(everything, nothing, atol=1e-5, rtol=1e-4)


def test_what_begins_alike_is_read_once() -> None:
    model, read = llama(), []
    forward = model.forward

    def counted(**inputs: Any) -> Any:
        read.append(inputs["input_ids"].numel())
        return forward(**inputs)

    counted.__signature__ = __import__("inspect").signature(forward)  # type: ignore[attr-defined]
    model.forward = counted
    beginning = random_tokens(40, 0)
    shared(TorchSession(model, "cpu"), [[*beginning, *random_tokens(3, seed)] for seed in range(4)], [3] * 4, [0] * 4)
    assert read == [40 + 4 * 2]
    read.clear()
    shared(TorchSession(model, "cpu"), [[*beginning, token] for token in range(4)], [1] * 4, [0] * 4)
    assert read == [40], "of continuations of one token none is read"


def test_no_logits_are_computed_that_nobody_asked_for() -> None:
    model, widths = llama(), []
    model.lm_head.register_forward_hook(lambda _, inputs, output: widths.append(output.shape[1]))
    shared(TorchSession(model, "cpu"), [random_tokens(30, 0), random_tokens(30, 1)], [4, 2], [0, 1])
    assert widths == [4]


def test_a_model_that_forgets_tokens_does_not_share() -> None:
    sliding = mistral(8)
    assert not can_share_prefix(sliding)
    assert TorchSession(sliding, "cpu").last_logits([[1, 2]], [1], [0]) is None
    assert can_share_prefix(llama())


def test_the_torch_session_has_the_capability() -> None:
    assert isinstance(TorchEager().prepare(tiny_causal_lm(num_layers=1), "cpu"), SharesPrefix)
