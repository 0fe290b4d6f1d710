"""How long calls took, arm by arm in bins that all arms of a schedule share, and the medians of its blocks in order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from compressbench.core.quantiles import summarize_quantiles
from compressbench.records.evidence import disturbances
from compressbench.records.measurement import Arm, Block, Measurement

NUM_BINS = 40
MOST_BLOCKS = 360
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_LOG_FROM = 4.0


class Histogram(NamedTuple):
    """Calls of one arm. `counts` has a number for each bin, `above` how many lay beyond the last edge, the slow tail."""

    counts: list[int]
    above: int


def shared_edges(values: Sequence[Sequence[int]], num_bins: int = NUM_BINS) -> list[int]:
    """Edges in whole nanoseconds from the fastest call to the slowest arm's p99, at most `num_bins` bins.

    Each of `values` is sorted and has at least one. Edges grow by a factor where they span one of 4 or more: a candidate
    that is ten times as fast then has as many bins as its baseline.
    """
    low = min(each[0] for each in values)
    high = max(low + 1, *(each[min(len(each) - 1, len(each) * 99 // 100)] for each in values))
    steps = [at / num_bins for at in range(num_bins + 1)]
    if high / low >= _LOG_FROM:
        edges = [round(low * (high / low) ** step) for step in steps]
    else:
        edges = [round(low + (high - low) * step) for step in steps]
    return sorted(set(edges))


def histogram(values: Sequence[int], edges: Sequence[int]) -> Histogram:
    """Sorted values into bins that hold their lower edge; the last bin holds its upper edge too, as numpy's do."""
    places = [bisect_left(values, edge) for edge in edges[:-1]] + [bisect_right(values, edges[-1])]
    return Histogram([end - start for start, end in pairwise(places)], len(values) - places[-1])


def latencies(measurement: Measurement, arms: Sequence[Arm]) -> dict[str, Any]:
    """Plain data: `edges_ns`, and for each arm its number of calls, counts, and the quantiles that its calls support."""
    calls = {arm: calls_of(measurement.blocks, arm) for arm in arms}
    calls = {arm: values for arm, values in calls.items() if values}
    ordered = {arm: sorted(values) for arm, values in calls.items()}
    edges = shared_edges(list(ordered.values()))
    found = {arm: histogram(values, edges) for arm, values in ordered.items()}
    return {
        "edges_ns": edges,
        "arms": {
            arm: {
                "num_calls": len(calls[arm]),
                "counts": each.counts,
                "above": each.above,
                "slowest_ns": ordered[arm][-1],
                "quantiles_ns": supported_quantiles(calls[arm]),
            }
            for arm, each in found.items()
        },
    }


def calls_of(blocks: Sequence[Block], arm: Arm) -> list[int]:
    """Nanoseconds of all calls of an arm, in the order of time."""
    return [each for block in blocks if block.arm == arm for each in block.latencies_ns]


def supported_quantiles(values: Sequence[int]) -> dict[str, float | None]:
    """By name, in nanoseconds; None where the calls are too few or too alike their neighbours."""
    found = summarize_quantiles(values, list(QUANTILES.values()))
    return {name: each.value for name, each in zip(QUANTILES, found, strict=True)}


def block_medians(measurement: Measurement) -> dict[str, Any]:
    """Plain data for a chart over time: of every block its arm (an index of `arms`), its median, and what disturbed it.

    A schedule of more than 360 blocks is shown in whole rounds, every `every`-th of them.
    """
    blocks = measurement.blocks
    every = 1 + (len(blocks) - 1) // MOST_BLOCKS
    shown = [at for at, block in enumerate(blocks) if block.round % every == 0]
    arms = list(dict.fromkeys(block.arm for block in blocks))
    disturbed = _disturbed(measurement)
    return {
        "arms": arms,
        "every": every,
        "num_blocks": len(blocks),
        "num_disturbed": None if disturbed is None else len(disturbed),
        "arm": [arms.index(blocks[at].arm) for at in shown],
        "median_ns": [median_ns(blocks[at].latencies_ns) for at in shown],
        "disturbed": {str(n): disturbed[at] for n, at in enumerate(shown) if disturbed and at in disturbed},
    }


def _disturbed(measurement: Measurement) -> Mapping[int, str] | None:
    """Why blocks count as disturbed, by number; None where nothing was read that could tell."""
    if measurement.evidence is None or measurement.rule is None:
        return None
    arms = [block.arm for block in measurement.blocks]
    reasons = disturbances(measurement.evidence, measurement.rule, len(arms), arms)
    return {at: ", ".join(each) for at, each in enumerate(reasons) if each}


def median_ns(values: Sequence[int]) -> int:
    """The median; between two middle values their mean, rounded down to a whole nanosecond."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) // 2
