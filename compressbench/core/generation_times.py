"""Times of generation, from the columns of a block of calls as it was recorded: nanoseconds in, seconds out.

Every time is a difference of two stamps of one clock in one `generate`; nothing is subtracted between calls, so none can
be negative. One call generates for a batch of sequences at once: a token's time is that of its position in all of them.

The columns: `latencies_ns`, `first_token_ns` and `num_tokens` (per sequence) have one value per call, `token_gaps_ns` all
gaps of all calls in their order, num_tokens - 1 of each call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_NS = 1e9


def gaps_by_call(num_tokens: Sequence[int], token_gaps_ns: Sequence[int]) -> list[Sequence[int]]:
    """The gaps of each call. Raises ValueError if there are more or fewer than the calls' tokens leave."""
    if any(count < 1 for count in num_tokens):
        raise ValueError(f"every call of a generation gives at least 1 token (got {min(num_tokens)})")
    wanted = sum(num_tokens) - len(num_tokens)
    if wanted != len(token_gaps_ns):
        raise ValueError(f"the calls' tokens leave {wanted} gaps between them (got {len(token_gaps_ns)})")
    gaps: list[Sequence[int]] = []
    start = 0
    for count in num_tokens:
        gaps.append(token_gaps_ns[start : start + count - 1])
        start += count - 1
    return gaps


def time_to_first_token_s(first_token_ns: Sequence[int]) -> list[float]:
    """TTFT of every call: from its beginning until its first token is on the host."""
    return [each / _NS for each in first_token_ns]


def time_per_output_token_s(num_tokens: Sequence[int], token_gaps_ns: Sequence[int]) -> list[float]:
    """TPOT of every call: (t_last - t_first) / (n - 1). Calls that gave a single token have none and are left out."""
    return [sum(gaps) / len(gaps) / _NS for gaps in gaps_by_call(num_tokens, token_gaps_ns) if gaps]


def inter_token_latency_s(token_gaps_ns: Sequence[int]) -> list[float]:
    """ITL: every gap between two tokens of a call; a token that stalls is seen here and hidden in TPOT."""
    return [each / _NS for each in token_gaps_ns]


def end_to_end_s(latencies_ns: Sequence[int]) -> list[float]:
    """Every call from its beginning until the device is done, after the last token."""
    return [each / _NS for each in latencies_ns]


def output_tokens_per_s(num_tokens: Sequence[int], latencies_ns: Sequence[int], batch_size: int) -> float:
    """Output tokens of all sequences per second of the calls, prefill included. Raises ValueError for no calls."""
    if len(num_tokens) != len(latencies_ns) or not latencies_ns:
        raise ValueError(f"one number of tokens per call is needed (got {len(num_tokens)} for {len(latencies_ns)})")
    return batch_size * sum(num_tokens) / (sum(latencies_ns) / _NS)


def decode_tokens_per_s(num_tokens: Sequence[int], token_gaps_ns: Sequence[int], batch_size: int) -> float:
    """Tokens after the first of all sequences per second of decoding; nan if every call gave a single token."""
    gaps = sum(len(each) for each in gaps_by_call(num_tokens, token_gaps_ns))
    return batch_size * gaps / (sum(token_gaps_ns) / _NS) if gaps else math.nan


def prefill_time_share(first_token_ns: Sequence[int], latencies_ns: Sequence[int]) -> float:
    """How much of the calls' time passed before their first tokens. Raises ValueError for no calls."""
    if len(first_token_ns) != len(latencies_ns) or not latencies_ns:
        raise ValueError(f"one first token per call is needed (got {len(first_token_ns)} for {len(latencies_ns)})")
    return sum(first_token_ns) / sum(latencies_ns)
