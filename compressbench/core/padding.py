"""Rows of unequal length cut into chunks that are padded one by one, so that little of the work is padding."""

from __future__ import annotations

from collections.abc import Sequence

PASS_TOKENS = 64
"""What a further pass through a model costs beside its tokens, in tokens; an order of magnitude, on a CPU."""


def chunks_by_length(lengths: Sequence[int], pass_tokens: int = PASS_TOKENS) -> list[list[int]]:
    """Indices in chunks, longest first, with the least sum of padded tokens and `pass_tokens` for every chunk.

    Exact, by dynamic programming over the rows in order of length; quadratic in their number.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    costs, begins = [0], list[int]()
    for end in range(1, len(order) + 1):
        cost, begin = min(
            (costs[begin] + (end - begin) * lengths[order[begin]] + pass_tokens, begin) for begin in range(end)
        )
        costs.append(cost)
        begins.append(begin)
    chunks, end = list[list[int]](), len(order)
    while end:
        chunks.append(order[begins[end - 1] : end])
        end = begins[end - 1]
    return chunks[::-1]
