from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from scipy import stats

from compressbench.core.errors import NotFiniteError, UnsupportedError
from compressbench.core.protocols import Batch, Decoding, Writes, Written
from compressbench.models.handle import ModelHandle
from compressbench.models.writing import sample
from compressbench.runtimes.torch_eager import TorchEager, TorchSession
from compressbench.testing import tiny_causal_lm
from compressbench.testing.models import tiny_tokenizer

END, PAD = 3, 0
PROMPTS = [[2, 4, 6, 8], [5, 7], [9], [4, 4, 10, 11, 12, 13, 14]]


@pytest.fixture(scope="module")
def handle() -> ModelHandle:
    """Weights large enough that what is written depends on what stands before."""
    made = tiny_causal_lm(num_layers=2, tied=False)
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
    return made


@pytest.fixture(scope="module")
def session(handle: ModelHandle) -> TorchSession:
    return TorchEager().prepare(handle, "cpu")


def left_padded(prompts: Sequence[Sequence[int]]) -> Batch:
    longest = max(map(len, prompts))
    gaps = [longest - len(prompt) for prompt in prompts]
    ids = [[PAD] * gap + list(prompt) for gap, prompt in zip(gaps, prompts, strict=True)]
    mask = [[0] * gap + [1] * (longest - gap) for gap in gaps]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def next_logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0, -1]
    return logits


def by_hand(model: Any, prompt: list[int], max_new_tokens: int) -> Written:
    ids = list(prompt)
    while len(ids) - len(prompt) < max_new_tokens:
        ids.append(int(next_logits(model, ids).argmax()))
        if ids[-1] == END:
            return Written(ids[len(prompt) :], True)
    return Written(ids[len(prompt) :], False)


def test_a_torch_session_can_write(session: TorchSession) -> None:
    assert isinstance(session, Writes)


def test_greedy_writing_takes_the_likeliest_token_until_the_text_ends(
    handle: ModelHandle, session: TorchSession
) -> None:
    prompts = [[token, other] for token in range(4, 19) for other in (4, 9)]
    expected = [by_hand(handle.model, prompt, 24) for prompt in prompts]
    assert {written.has_ended for written in expected} == {True, False}, "both kinds are tested"
    assert session.write(left_padded(prompts), Decoding(max_new_tokens=24)) == expected


@pytest.mark.parametrize("decoding", [Decoding(max_new_tokens=12), Decoding(max_new_tokens=12, temperature=1.5)])
def test_a_text_does_not_depend_on_the_batch_it_was_written_in(session: TorchSession, decoding: Decoding) -> None:
    alone = [session.write(left_padded([prompt]), decoding)[0] for prompt in PROMPTS]
    assert session.write(left_padded(PROMPTS), decoding) == alone
    assert session.write(left_padded(PROMPTS[::-1]), decoding) == alone[::-1]
    assert len({tuple(written.tokens) for written in alone}) > 1


def test_prompts_padded_on_the_right_are_refused(session: TorchSession) -> None:
    batch = {"input_ids": torch.tensor([[4, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
    with pytest.raises(ValueError, match="padded on the left"):
        session.write(batch, Decoding())


def test_nothing_of_the_models_own_generation_config_but_its_special_tokens_counts(
    handle: ModelHandle, session: TorchSession
) -> None:
    plain = session.write(left_padded(PROMPTS), Decoding(max_new_tokens=16))
    its_own = handle.model.generation_config
    before = its_own.to_dict()
    unruly = {"repetition_penalty": 1e4, "do_sample": True, "num_beams": 3, "min_new_tokens": 16, "max_time": 1e-9}
    try:
        for name, value in unruly.items():
            setattr(its_own, name, value)
        assert session.write(left_padded(PROMPTS), Decoding(max_new_tokens=16)) == plain
        assert handle.model.generation_config is its_own
        its_own.eos_token_id = [99, plain[0].tokens[-1]]
        first = plain[0].tokens.index(plain[0].tokens[-1]) + 1
        assert session.write(left_padded(PROMPTS), Decoding(max_new_tokens=16))[0] == (plain[0].tokens[:first], True)
    finally:
        for name, value in before.items():
            setattr(its_own, name, value)


def test_writing_does_not_change_what_is_timed(handle: ModelHandle, session: TorchSession) -> None:
    fresh = TorchEager().prepare(handle, "cpu")
    timed = fresh.generate(left_padded(PROMPTS), 9)
    session.write(left_padded(PROMPTS), Decoding(max_new_tokens=3, temperature=2.0, until=("cat",)))
    assert torch.equal(session.generate(left_padded(PROMPTS), 9), timed)


def test_a_stop_string_ends_the_text_with_the_token_that_completes_it(
    handle: ModelHandle, session: TorchSession
) -> None:
    free = session.write(left_padded(PROMPTS), Decoding(max_new_tokens=16))
    long = next(written.tokens for written in free if len(written.tokens) > 6)
    string = handle.tokenizer.decode(long[3:5])
    assert " " in string, "it spans two tokens"
    stopped = session.write(left_padded(PROMPTS), Decoding(max_new_tokens=16, until=("never there", string)))
    for before, after in zip(free, stopped, strict=True):
        texts = [handle.tokenizer.decode(before.tokens[:count]) for count in range(1, len(before.tokens) + 1)]
        first = next((count for count, text in enumerate(texts, 1) if string in text), None)
        expected = before if first is None else Written(before.tokens[:first], True)
        assert after == expected
    assert any(after != before for before, after in zip(free, stopped, strict=True))


def test_stop_strings_need_a_tokenizer(handle: ModelHandle) -> None:
    session = TorchSession(handle.model, "cpu")
    assert len(session.write(left_padded(PROMPTS), Decoding(max_new_tokens=2))) == 4
    with pytest.raises(UnsupportedError, match="stop strings need a tokenizer"):
        session.write(left_padded(PROMPTS), Decoding(until=("x",)))


def test_the_same_seed_writes_the_same_texts_whatever_the_global_generator_does(session: TorchSession) -> None:
    decoding = Decoding(max_new_tokens=12, temperature=1.5, num_samples=3)
    torch.manual_seed(1)
    first = session.write(left_padded(PROMPTS), decoding)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert session.write(left_padded(PROMPTS), decoding) == first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "nothing was drawn from it"
    other = session.write(left_padded(PROMPTS), decoding.model_copy(update={"seed": 1}))
    assert other != first
    assert len(first) == 12
    assert first[0].tokens != first[1].tokens


def test_samples_follow_the_softmax_at_their_temperature(handle: ModelHandle, session: TorchSession) -> None:
    count, temperature = 4000, 5.0
    decoding = Decoding(max_new_tokens=1, temperature=temperature, num_samples=count, seed=5)
    written = session.write(left_padded([PROMPTS[0]]), decoding)
    found = torch.bincount(torch.tensor([each.tokens[0] for each in written]), minlength=19)
    expected = count * (next_logits(handle.model, PROMPTS[0]).double() / temperature).softmax(0)
    assert expected.min() > 5, "the test needs every cell"
    assert stats.chisquare(found.numpy(), expected.numpy()).pvalue > 0.01
    flat = torch.full((19,), count / 19, dtype=torch.float64)
    assert stats.chisquare(found.numpy(), flat.numpy()).pvalue < 1e-6, "it would see a wrong temperature"


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(None, 1.0), (3, 1.0), (None, 0.6), (4, 0.75), (1, 1.0), (None, 1e-9), (100, 1.0)]
)
def test_what_can_be_drawn_is_what_transformers_leaves_possible(top_k: int | None, top_p: float) -> None:
    from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

    logits = 2 * torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    left = logits / 0.7
    if top_k is not None:
        left = TopKLogitsWarper(top_k)(None, left)
    left = TopPLogitsWarper(top_p)(None, left).double().softmax(dim=-1)
    grid = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    decoding = Decoding(temperature=0.7, top_k=top_k, top_p=top_p)
    for row in range(5):
        drawn = sample(logits[row].expand(len(grid), -1), grid, decoding)
        shares = torch.bincount(drawn, minlength=11) / len(grid)
        assert torch.allclose(shares.double(), left[row], atol=1.5e-4)


def test_the_largest_uniform_number_draws_a_token_that_can_be_drawn() -> None:
    logits = torch.tensor([[0.0, 5.0, 5.0, -torch.inf]])
    almost_one = torch.tensor([1 - 2**-53], dtype=torch.float64)
    assert int(sample(logits, almost_one, Decoding(temperature=1.0))) == 0
    assert int(sample(logits, almost_one, Decoding(temperature=1.0, top_p=0.9))) in {1, 2}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_end_the_cell(handle: ModelHandle, temperature: float, value: float) -> None:
    broken = handle.copy()
    with torch.no_grad():
        broken.model.model.norm.weight.fill_(value)
    with pytest.raises(NotFiniteError, match="logits that are not finite"):
        TorchEager().prepare(broken, "cpu").write(
            left_padded(PROMPTS), Decoding(max_new_tokens=2, temperature=temperature)
        )


def test_a_model_that_names_no_end_takes_the_tokenizers(handle: ModelHandle) -> None:
    free = handle.copy()
    free.model.generation_config.eos_token_id = free.model.generation_config.pad_token_id = None
    tokenizer = tiny_tokenizer()
    endless = TorchSession(free.model, "cpu", tokenizer).write(left_padded(PROMPTS), Decoding(max_new_tokens=9))
    assert not any(written.has_ended for written in endless)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(endless[0].tokens[2])
    found = TorchSession(free.model, "cpu", tokenizer).write(left_padded(PROMPTS), Decoding(max_new_tokens=9))
    first = endless[0].tokens.index(endless[0].tokens[2])
    assert found[0] == (endless[0].tokens[: first + 1], True)
