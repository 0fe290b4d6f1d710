"""Closed forms: a call whose token i comes at a known nanosecond."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressbench.core.generation_times import (
    decode_tokens_per_s,
    end_to_end_s,
    gaps_by_call,
    inter_token_latency_s,
    output_tokens_per_s,
    prefill_time_share,
    time_per_output_token_s,
    time_to_first_token_s,
)

FAST = settings(max_examples=40, deadline=None, database=None, derandomize=True)
STAMPS = st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=6), min_size=1, max_size=5)


@FAST
@given(STAMPS)
def test_tpot_is_the_time_from_the_first_to_the_last_token_over_the_tokens_after_the_first(
    steps: list[list[int]],
) -> None:
    """Each call is a list of the nanoseconds that its tokens took, prefill first."""
    num_tokens = [len(call) for call in steps]
    gaps = [gap for call in steps for gap in call[1:]]
    found = time_per_output_token_s(num_tokens, gaps)
    stamps = [[sum(call[: index + 1]) for index in range(len(call))] for call in steps]
    expected = [(call[-1] - call[0]) / (len(call) - 1) / 1e9 for call in stamps if len(call) > 1]
    assert found == pytest.approx(expected, rel=1e-12)
    assert [list(each) for each in gaps_by_call(num_tokens, gaps)] == [call[1:] for call in steps]


def test_a_block_of_two_calls_in_numbers() -> None:
    """4 tokens: 20 ms, then 3, 3 and 6 ms, and 1 ms to the end; 2 tokens: 30 ms, then 5 ms, and nothing after."""
    first, gaps, num_tokens = (20_000_000, 30_000_000), (3_000_000, 3_000_000, 6_000_000, 5_000_000), (4, 2)
    latencies = (33_000_000, 35_000_000)
    assert time_to_first_token_s(first) == [0.020, 0.030]
    assert time_per_output_token_s(num_tokens, gaps) == pytest.approx([0.004, 0.005])
    assert inter_token_latency_s(gaps) == [0.003, 0.003, 0.006, 0.005]
    assert end_to_end_s(latencies) == [0.033, 0.035]
    assert output_tokens_per_s(num_tokens, latencies, batch_size=1) == pytest.approx(6 / 0.068)
    assert output_tokens_per_s(num_tokens, latencies, batch_size=8) == pytest.approx(48 / 0.068)
    assert decode_tokens_per_s(num_tokens, gaps, batch_size=8) == pytest.approx(8 * 4 / 0.017)
    assert prefill_time_share(first, latencies) == pytest.approx(50 / 68)


def test_a_call_with_one_token_has_no_time_per_output_token() -> None:
    assert time_per_output_token_s([1, 3, 1], [4_000_000, 2_000_000]) == [0.003]
    assert time_per_output_token_s([1, 1], []) == []
    assert math.isnan(decode_tokens_per_s([1, 1], [], batch_size=2))
    assert output_tokens_per_s([1, 1], [10**9, 10**9], batch_size=1) == 1.0


@pytest.mark.parametrize(("num_tokens", "gaps"), [([3, 3], 3), ([3, 3], 5), ([1], 1), ([], 1), ([2, 0], 0)])
def test_columns_that_do_not_belong_together_are_refused(num_tokens: list[int], gaps: int) -> None:
    with pytest.raises(ValueError, match="got"):
        gaps_by_call(num_tokens, [1] * gaps)
    with pytest.raises(ValueError, match="got"):
        time_per_output_token_s(num_tokens, [1] * gaps)


def test_rates_and_shares_of_no_calls_are_refused() -> None:
    for num_calls, latencies in ((0, []), (2, [1]), (1, [])):
        with pytest.raises(ValueError, match="got"):
            output_tokens_per_s([4] * num_calls, latencies, batch_size=1)
        with pytest.raises(ValueError, match="got"):
            prefill_time_share([4] * num_calls, latencies)
