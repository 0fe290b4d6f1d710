"""The numbers of one record, computed from its raw values when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from compressbench.core.protocols import Provenance
from compressbench.core.reading import Reading
from compressbench.core.statistics import (
    Interval,
    mean_interval,
    proportion_interval,
    quantile_interval,
    smallest_count_for,
)
from compressbench.records.record import Arm, Block, Measurement, Record, Score

_CLOCK = Provenance(kind="measured", source="monotonic clock (perf_counter_ns), device synchronised")
_QUANTILES = {"latency_p50_s": 0.5, "latency_p95_s": 0.95}


def number(record: Record, name: str) -> Reading | None:
    """A named number of a record, or None if it isn't there."""
    found = record.reading(name)
    if found is not None or record.measurement is None or name not in _FROM_BLOCKS:
        return found
    blocks = own_blocks(record.measurement, record.role)
    return _FROM_BLOCKS[name](record.measurement, blocks, name)


def why_refused(record: Record, name: str) -> str:
    """The reason why a number can't be given though its raw values are there."""
    if record.measurement is None or name not in _QUANTILES:
        return ""
    count = len(latencies_s(own_blocks(record.measurement, record.role)))
    needed = smallest_count_for(_QUANTILES[name])
    return f"{count} calls are too few for this quantile: it needs {needed}" if count < needed else ""


def own_blocks(measurement: Measurement, arm: Arm) -> list[Block]:
    return [block for block in measurement.blocks if block.arm == arm]


def latencies_s(blocks: Sequence[Block]) -> list[float]:
    """Seconds of every call in the blocks."""
    return [nanoseconds / 1e9 for block in blocks for nanoseconds in block.latencies_ns]


def score_interval(score: Score) -> tuple[float | None, float | None]:
    """95 % interval of a score on its own: Wilson's for a proportion, none for other metrics."""
    if not score.is_binary:
        return None, None
    interval = proportion_interval(score.value, score.num_samples)
    return interval.low, interval.high


def _quantile(_: Measurement, blocks: Sequence[Block], name: str) -> Reading | None:
    interval = quantile_interval(latencies_s(blocks), _QUANTILES[name])
    return None if interval is None else _reading(name, interval, _CLOCK)


def _throughput(measurement: Measurement, blocks: Sequence[Block], name: str) -> Reading | None:
    rates = [measurement.batch_size * len(block.latencies_ns) / _seconds(block) for block in blocks]
    count = measurement.batch_size * sum(len(block.latencies_ns) for block in blocks)
    overall = count / sum(_seconds(block) for block in blocks)
    return _reading(name, _around(overall, rates), _CLOCK)


def _energy(measurement: Measurement, blocks: Sequence[Block], name: str) -> Reading | None:
    provenance = measurement.provenance.get("energy_j")
    if provenance is None or any("energy_j" not in block.raw for block in blocks):
        return None
    per_call = [block.raw["energy_j"] / len(block.latencies_ns) / measurement.batch_size for block in blocks]
    count = measurement.batch_size * sum(len(block.latencies_ns) for block in blocks)
    overall = sum(block.raw["energy_j"] for block in blocks) / count
    return _reading(name, _around(overall, per_call), provenance)


def _seconds(block: Block) -> float:
    return sum(block.latencies_ns) / 1e9


def _around(value: float, per_block: Sequence[float]) -> Interval | float:
    """The overall value with the half-width that the blocks' spread gives it; bare if there is one block only."""
    if len(per_block) < 2:
        return value
    spread = mean_interval(per_block)
    half = (spread.high - spread.low) / 2
    return Interval(value, value - half, value + half)


def _reading(name: str, found: Interval | float, provenance: Provenance) -> Reading:
    """A reading whose interval holds the spread of the blocks and what the instrument says of itself."""
    if not isinstance(found, Interval):
        found = Interval(found, math.nan, math.nan)
    relative = provenance.relative_uncertainty or 0.0
    low = found.value - math.hypot(found.value - found.low, relative * found.value)
    high = found.value + math.hypot(found.high - found.value, relative * found.value)
    is_bounded = math.isfinite(low)
    return Reading(
        name=name,
        value=found.value,
        kind=provenance.kind,
        source=provenance.source,
        boundary=provenance.boundary,
        low=low if is_bounded else None,
        high=high if is_bounded else None,
        uncertainty_reason="" if is_bounded else "one block only",
    )


_FROM_BLOCKS: dict[str, Callable[[Measurement, Sequence[Block], str], Reading | None]] = {
    "latency_p50_s": _quantile,
    "latency_p95_s": _quantile,
    "throughput_per_s": _throughput,
    "energy_j_per_inference": _energy,
}
