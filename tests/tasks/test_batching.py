from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from compressbench.tasks.batching import batches_by_length, encode, pad, shuffled_batches
from compressbench.testing import tiny_tokenizer

FAST = settings(max_examples=50, deadline=None, database=None, derandomize=True)
LENGTHS = st.lists(st.integers(1, 30), max_size=300)


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
