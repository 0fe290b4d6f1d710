"""Latency, throughput, times of tokens and rates of one arm, from its raw blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from compressbench.core.generation_times import time_per_output_token_s
from compressbench.core.protocols import Provenance
from compressbench.core.quantiles import QuantileEstimate, summarize_quantiles
from compressbench.core.reading import Reading
from compressbench.core.server_rates import highest_rate, of_finished_rounds
from compressbench.core.statistics import Interval
from compressbench.core.units import humanize
from compressbench.records.measurement import Arm, Block, Measurement, Server
from compressbench.report.bounded import of_rounds, reading

CLOCK = Provenance(
    kind="measured", source="monotonic clock (perf_counter_ns), device synchronised", relative_uncertainty=0.0
)

NO_GENERATION = "nothing is generated: the workload has no output_tokens"
NO_SERVER = "the scenario is not server"


class _Series(NamedTuple):
    """Nanoseconds in time order, the quantiles that are shown of them by name, and what one of them is of."""

    quantiles: dict[str, float]
    values: Sequence[float]
    what: str


def speed_readings(blocks: Sequence[Block], batch_size: int) -> Iterator[Reading]:
    """Every number that the samples support; a quantile that they don't support has no reading."""
    for name, found in estimates(blocks).items():
        if found.value is not None and found.low is not None and found.high is not None:
            bounds = Interval(*(each / 1e9 for each in (found.value, found.low, found.high)))
            yield reading(name, bounds, _with_counts(found))
    yield reading("throughput_per_s", _rate(blocks, batch_size, lambda block: len(block.latencies_ns)), CLOCK)
    if any(block.num_tokens for block in blocks):
        yield reading("output_tokens_per_s", _rate(blocks, batch_size, lambda block: sum(block.num_tokens)), CLOCK)


def estimates(blocks: Sequence[Block]) -> dict[str, QuantileEstimate]:
    """The quantiles by their names in tables, or why the samples don't support them."""
    found: dict[str, QuantileEstimate] = {}
    for each in _series_of(blocks):
        quantiles = summarize_quantiles(each.values, list(each.quantiles.values()), _show, each.what)
        found |= dict(zip(each.quantiles, quantiles, strict=True))
    return found


def server_readings(measurement: Measurement, arm: Arm) -> Iterator[Reading]:
    server = measurement.server
    trials = () if server is None else of_finished_rounds(server.trials, server.num_rounds)
    found = highest_rate(trials, arm)
    if server is not None and found is not None:
        bounds = found.value if found.high is None else Interval(found.value, found.low, found.high)
        yield reading("max_rate_per_s", bounds, CLOCK.model_copy(update={"source": _limit(server)}))


def why_refused(measurement: Measurement, blocks: Sequence[Block], name: str) -> str:
    """Why the samples don't give a number; "" if they do, or if nobody knows."""
    if name == "max_rate_per_s":
        if measurement.server is None:
            return NO_SERVER
        arm: Arm = "candidate" if blocks and blocks[0].arm == "candidate" else "baseline"
        why = measurement.server.reasons.get(arm, "no rate was kept in every round")
        return f"{why} ({_limit(measurement.server)})"
    if name in _OF_GENERATION and not any(block.num_tokens for block in blocks):
        return NO_GENERATION
    for each in _series_of(blocks, name):
        return summarize_quantiles(each.values, [each.quantiles[name]], _show, each.what)[0].reason
    return ""


_OF_CALLS = {"latency_p50_s": 0.5, "latency_p95_s": 0.95, "latency_p99_s": 0.99}
_OF_FIRST = {"ttft_p50_s": 0.5, "ttft_p99_s": 0.99}
_OF_TOKENS = {"tpot_p50_s": 0.5}
_OF_GAPS = {"itl_p50_s": 0.5, "itl_p99_s": 0.99}
_OF_GENERATION = {*_OF_FIRST, *_OF_TOKENS, *_OF_GAPS, "output_tokens_per_s"}


def _series_of(blocks: Sequence[Block], name: str | None = None) -> Iterator[_Series]:
    """The series that have quantiles, or only the one that has `name`."""
    if name is None or name in _OF_CALLS:
        yield _Series(_OF_CALLS, [each for block in blocks for each in block.latencies_ns], "calls")
    if not any(block.num_tokens for block in blocks):
        return
    if name is None or name in _OF_FIRST:
        yield _Series(_OF_FIRST, [each for block in blocks for each in block.first_token_ns], "calls")
    if name is None or name in _OF_TOKENS:
        per_token = [time_per_output_token_s(block.num_tokens, block.token_gaps_ns) for block in blocks]
        yield _Series(_OF_TOKENS, [1e9 * each for calls in per_token for each in calls], "calls")
    if name is None or name in _OF_GAPS:
        yield _Series(_OF_GAPS, [each for block in blocks for each in block.token_gaps_ns], "gaps between tokens")


def _rate(blocks: Sequence[Block], batch_size: int, count_of: Callable[[Block], int]) -> Interval | float:
    counts = [batch_size * count_of(block) for block in blocks]
    seconds = [sum(block.latencies_ns) / 1e9 for block in blocks]
    return of_rounds(counts, seconds, [block.round for block in blocks])


def _with_counts(found: QuantileEstimate) -> Provenance:
    if not found.is_autocorrelated:
        return CLOCK
    counts = f"{found.num_values} values that resemble their neighbours, as good as {found.num_effective}"
    return CLOCK.model_copy(update={"source": f"{CLOCK.source}; {counts}"})


def _limit(server: Server) -> str:
    return f"p{100 * server.quantile:g} of latency from the scheduled arrival within {humanize(server.limit_s, 's')}"


def _show(nanoseconds: float) -> str:
    return humanize(nanoseconds / 1e9, "s")
