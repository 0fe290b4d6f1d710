from __future__ import annotations

from itertools import combinations

import pytest

from compressbench.core.padding import chunks_by_length


def cost(lengths: list[int], chunks: list[list[int]], pass_tokens: int) -> int:
    return sum(len(chunk) * max(lengths[index] for index in chunk) + pass_tokens for chunk in chunks)


def least_cost(lengths: list[int], pass_tokens: int) -> int:
    """Over every way to cut the sorted rows."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    cuts = [cut for count in range(len(order)) for cut in combinations(range(1, len(order)), count)]
    parts = [[order[begin:end] for begin, end in zip((0, *cut), (*cut, len(order)), strict=True)] for cut in cuts]
    return min(cost(lengths, chunks, pass_tokens) for chunks in parts)


@pytest.mark.parametrize("lengths", [[5], [3, 3, 3], [100, 1, 1, 1, 90, 2, 50, 51], [7, 1, 20, 3, 3, 9, 12, 40, 2]])
@pytest.mark.parametrize("pass_tokens", [0, 4, 64, 1000])
def test_chunks_have_the_least_padding_of_all_cuts(lengths: list[int], pass_tokens: int) -> None:
    chunks = chunks_by_length(lengths, pass_tokens)
    assert sorted(index for chunk in chunks for index in chunk) == list(range(len(lengths)))
    assert cost(lengths, chunks, pass_tokens) == least_cost(lengths, pass_tokens)
    firsts = [lengths[chunk[0]] for chunk in chunks]
    assert firsts == sorted(firsts, reverse=True)


def test_no_rows_are_no_chunks() -> None:
    assert chunks_by_length([]) == []
