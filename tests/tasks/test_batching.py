from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedConfig

from compressbench.tasks.batching import (
    Size,
    batches_by_length,
    batches_by_tokens,
    batches_in_order,
    encode,
    longest_input,
    pad,
    padded,
    shuffled_batches,
)
from compressbench.testing import tiny_causal_lm, tiny_tokenizer

FAST = settings(max_examples=50, deadline=None, database=None, derandomize=True)
LENGTHS = st.lists(st.integers(1, 30), max_size=300)


def test_batches_in_order_are_full_but_for_the_last() -> None:
    assert [list(batch) for batch in batches_in_order(7, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert batches_in_order(0, 3) == []


@FAST
@given(LENGTHS, st.integers(1, 40))
def test_evaluation_batches_hold_every_index_once_from_long_to_short(lengths: list[int], batch_size: int) -> None:
    batches = batches_by_length(lengths, batch_size)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths, reverse=True)
    assert all(len(batch) == batch_size for batch in batches[:-1])


@FAST
@given(LENGTHS, st.integers(1, 40), st.integers(0, 9))
def test_training_batches_hold_every_index_once_with_little_padding(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    batches = shuffled_batches(lengths, batch_size, seed)
    assert batches == shuffled_batches(lengths, batch_size, seed)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(0 < len(batch) <= batch_size for batch in batches)
    if len(lengths) <= batch_size * 50:  # one pool: the batches' ranges of lengths don't cross
        spans = sorted((min(lengths[i] for i in batch), max(lengths[i] for i in batch)) for batch in batches)
        assert all(low[1] <= high[0] for low, high in itertools.pairwise(spans))


def test_padding_is_masked_and_adds_no_more_than_the_longest_text_needs() -> None:
    tokenizer = tiny_tokenizer()
    encoded = encode(tokenizer, ["the cat", "a", "the dog sat on the mat"], None, max_length=6)
    assert [row["input_ids"] for row in encoded] == [[2, 4, 6, 3], [2, 5, 3], [2, 4, 7, 8, 10, 3]]
    padded = pad(encoded, tokenizer)
    assert padded["input_ids"].tolist() == [[2, 4, 6, 3, 0, 0], [2, 5, 3, 0, 0, 0], [2, 4, 7, 8, 10, 3]]
    assert padded["attention_mask"].sum(dim=1).tolist() == [4, 3, 6]


def test_pairs_are_encoded_side_by_side() -> None:
    encoded = encode(tiny_tokenizer(), ["the cat", "a"], ["a dog", "mat"], max_length=8)
    assert [row["input_ids"] for row in encoded] == [[2, 4, 6, 3, 5, 7, 3], [2, 5, 3, 11, 3]]


def test_batches_keep_to_both_of_their_limits() -> None:
    sizes = [Size(10, 4, 2), Size(3), Size(50, 20, 4), Size(9, 6, 2), Size(10, 1, 1), Size(500, 9, 9)]
    batches = batches_by_tokens(sizes, batch_size=6, token_budget=40)
    assert batches == [[5], [2], [0, 4], [3, 1]]
    for batch in batches:
        longest = max(sizes[index].padded for index in batch)
        num_tokens = len(batch) * longest + sum(sizes[index].extra for index in batch)
        assert len(batch) == 1 or num_tokens <= 40
        assert len(batch) == 1 or sum(sizes[index].sequences for index in batch) <= 6
    assert batches_by_tokens([Size(1)] * 5, batch_size=2, token_budget=100) == [[0, 1], [2, 3], [4]]


def test_rows_are_padded_and_masked_on_the_right() -> None:
    batch = padded([[5, 6, 7], [8]])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_the_longest_input_is_asked_for_or_the_models_or_the_tokenizers() -> None:
    handle = tiny_causal_lm(num_layers=1)
    assert longest_input(handle, 7) == 7
    assert longest_input(handle, None) == 64
    handle.model.config = PreTrainedConfig()
    handle.tokenizer.model_max_length = 33
    assert longest_input(handle, None) == 33
    handle.tokenizer.model_max_length = 10**30
    assert longest_input(handle, None) == 2048
