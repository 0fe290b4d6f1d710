"""Quantiles of latency that the number of calls supports, with bounds that hold for calls that resemble their neighbours.

Every claim stands on binomial ranks and so on no distribution. Ranks are taken for the effective number of values, and
that is judged on whether values lie above the quantile, not on the values: slow calls that come in clusters make a p99
uncertain, however independent the rest is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, repeat
from operator import gt
from typing import NamedTuple

from compressbench.core.autocorrelation import NUM_BATCHES, batch_edges, batch_spread
from compressbench.core.statistics import (
    largest_within,
    quantile_ranks,
    quantile_type_8,
    smallest_count_for,
    t_quantile,
)

BOUND_CONFIDENCE = 0.99
_Z95_ONE_SIDED = 1.6448536269514722
_Z99_ONE_SIDED = 2.3263478740408408
_BEYOND = 50
_TESTABLE = 72
_TAIL = 0.025


class QuantileEstimate(NamedTuple):
    """A quantile in the unit of its values, or the reason why there is none (then all but the counts are None).

    `value` is Hyndman & Fan's type 8, `low` and `high` its two-sided 95 % interval, and `upper_bound` what the quantile
    stays below with 99 % confidence, as MLPerf's LoadGen reports it (None if that needs more values). `num_effective` of
    the `num_values` count as independent, and an interval needs `needed` of those.
    """

    value: float | None
    low: float | None
    high: float | None
    upper_bound: float | None
    num_values: int
    num_effective: int
    needed: int
    reason: str = ""

    @property
    def is_autocorrelated(self) -> bool:
        """Whether fewer than half of the values count as independent, which a reader should be told."""
        return self.num_effective < self.num_values / 2


def _four_digits(value: float) -> str:
    return f"{value:.4g}"


def summarize_quantile(
    values: Sequence[float], probability: float, show: Callable[[float], str] = _four_digits, what: str = "calls"
) -> QuantileEstimate:
    """One quantile of values in the order of time. `show` formats a value and `what` names them, for the reason."""
    return summarize_quantiles(values, [probability], show, what)[0]


def summarize_quantiles(
    values: Sequence[float],
    probabilities: Sequence[float],
    show: Callable[[float], str] = _four_digits,
    what: str = "calls",
) -> list[QuantileEstimate]:
    """The same for several quantiles, which share the work of sorting. Probabilities are between 0 and 1, exclusive."""
    ordered = sorted(values)
    inflations: dict[int, float] = {}

    def inflation(rank: int) -> float:
        if rank not in inflations:
            inflations[rank] = clustering(values, ordered[rank - 1])
        return inflations[rank]

    return [_estimate(ordered, probability, inflation, (show, what)) for probability in probabilities]


def _estimate(
    ordered: Sequence[float],
    probability: float,
    inflation: Callable[[int], float],
    words: tuple[Callable[[float], str], str],
) -> QuantileEstimate:
    count, needed = len(ordered), smallest_count_for(probability)
    levels = {_rank(probability, count), _rank(_well_seen(probability, count), count)} if count else set()
    clusters = max((inflation(rank) for rank in levels), default=1.0)
    effective = max(1, int(count / clusters)) if count else 0
    ranks = quantile_ranks(effective, probability)
    if ranks is None:
        reason = _refusal(ordered, probability, effective, words)
        return QuantileEstimate(None, None, None, None, count, effective, needed, reason)
    value = quantile_type_8(ordered, probability)
    low = ordered[(ranks[0] - 1) * count // effective]
    high = ordered[count - 1 - (effective - ranks[1]) * count // effective]
    bound = _upper_bound(ordered, probability, effective)
    return QuantileEstimate(value, min(low, value), max(high, value), bound, count, effective, needed)


def _rank(probability: float, count: int) -> int:
    return min(max(int(probability * (count + 1 / 3) + 1 / 3), 1), count)


def _well_seen(probability: float, count: int) -> float:
    """The nearest quantile towards the median that 50 values lie beyond.

    The ten slowest calls of a thousand say little of how calls cluster; the fifty slowest say it well enough to refuse.
    Judged on its own tail alone, p99 of 1,000 values of AR(1) 0.9 is given in 24 % of streams and its interval then
    holds the truth in 83 % of them; judged so, it is given in 0.3 %.
    """
    nearest = max(0.5, 1 - _BEYOND / count)
    return min(probability, nearest) if probability >= 0.5 else max(probability, 1 - nearest)


def clustering(values: Sequence[float], level: float) -> float:
    """How many times fewer values than there are would be independent, seen from above or below `level`; at least 1.

    The long-run variance of the indicator over its variance, from 20 batches.
    """
    count = len(values)
    # bytes are counted and searched at the speed of C: this runs for every quantile of every record of a table
    flags = bytes(map(gt, values, repeat(level)))
    num_above = flags.count(1)
    share = num_above / count
    variance = share * (1 - share)
    edges = batch_edges(count)
    if variance == 0 or len(edges) < 3:
        return 1.0
    lag_one = (num_adjacent(flags) / (count - 1) - share * share) / variance
    deviations = [flags.count(1, begin, end) - share * (end - begin) for begin, end in pairwise(edges)]
    spread = batch_spread(deviations, edges)
    if _looks_independent(lag_one, spread.raw / variance, count):
        return 1.0
    return max(1.0, spread.corrected / variance)


def num_adjacent(flags: bytes) -> int:
    """How often a 1 follows a 1: as many as there are, less one for each run of them."""
    return flags.count(1) - flags.count(b"\x00\x01") - flags.startswith(b"\x01")


def _looks_independent(lag_one: float, variance_ratio: float, count: int) -> bool:
    """Whether neither the lag-one autocorrelation nor the batches reject independence, each at 5 %.

    An estimate that may only err upwards would widen every interval of independent values (98 % coverage). From 20 to
    71 values, where only quantiles near the median exist, the test is too weak to be trusted and the interval is
    widened; below 20 even the estimate is noise, and only what is plain counts.
    """
    if NUM_BATCHES <= count < _TESTABLE:
        return False
    most = _variance_ratio_95(min(count, NUM_BATCHES) - 1)
    return lag_one <= _Z95_ONE_SIDED / math.sqrt(count) and variance_ratio <= most


def _variance_ratio_95(degrees_of_freedom: int) -> float:
    """95 % quantile of chi-squared over its degrees of freedom (Wilson & Hilferty 1931)."""
    variance = 2 / (9 * degrees_of_freedom)
    return (1 - variance + _Z95_ONE_SIDED * math.sqrt(variance)) ** 3


def _upper_bound(ordered: Sequence[float], probability: float, effective: int) -> float | None:
    """The order statistic that the quantile stays below with 99 % confidence, None if even the largest doesn't do.

    An effective number that had to be estimated is reduced by what 20 batches leave open (z against Student's t): a
    bound at 99 % feels it, an interval at 95 % doesn't, where the upward bias of the estimate makes up for it.
    """
    count = len(ordered)
    if effective < count:
        num_batches = len(batch_edges(count)) - 1
        effective = int(effective * (_Z99_ONE_SIDED / t_quantile(BOUND_CONFIDENCE, num_batches - 1)) ** 2)
    num_above = largest_within(effective, 1 - probability, 1 - BOUND_CONFIDENCE)
    return None if num_above < 0 else ordered[count - 1 - num_above * count // effective]


def smallest_count_for_bound(probability: float, num_above: int = 0, confidence: float = BOUND_CONFIDENCE) -> int:
    """How many independent values an upper bound of this quantile needs that leaves `num_above` of them above it.

    With one above at 99 % this is MLPerf's 64 for p90 and 662 for p99.
    """
    below, enough = num_above, 2 * num_above + 1
    while largest_within(enough, 1 - probability, 1 - confidence) < num_above:
        below, enough = enough, 2 * enough
    while enough - below > 1:
        middle = (below + enough) // 2
        if largest_within(middle, 1 - probability, 1 - confidence) < num_above:
            below = middle
        else:
            enough = middle
    return enough


def _refusal(
    ordered: Sequence[float], probability: float, effective: int, words: tuple[Callable[[float], str], str]
) -> str:
    """What is known all the same, what was got, and what is needed.

    The largest of 120 is no lower limit of p99 (in 30 % of cases p99 lies below it); an order statistic further down is.
    """
    show, what = words
    count, needed = len(ordered), smallest_count_for(probability)
    text = f"{count} {what} are too few for p{100 * probability:g}, which needs {needed}"
    if effective < count:
        like_these = math.ceil(needed * count / effective)
        worth = "1 independent one" if effective == 1 else f"{effective} independent ones"
        text = (
            f"{count} {what}, worth {worth}, are too few for p{100 * probability:g}, "
            f"which needs {needed} independent ones: about {like_these} {what} like these"
        )
    below = largest_within(effective, probability, _TAIL) if count else -1
    if below < 0:
        return text
    floor = show(ordered[below * count // effective])
    return f"at least {floor} with 97.5 % confidence (the largest of {count} is {show(ordered[-1])}): {text}"
