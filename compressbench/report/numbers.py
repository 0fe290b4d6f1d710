"""The numbers of one record, computed from its raw values when they are asked for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

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


def numbers_of(record: Record) -> dict[str, Reading]:
    """Every number of a record by its name; what isn't there has no key."""
    found = {reading.name: reading for reading in record.readings}
    if record.measurement is not None:
        blocks = own_blocks(record.measurement, record.role)
        found |= {reading.name: reading for reading in _from_blocks(record.measurement, blocks)}
    return found


def _from_blocks(measurement: Measurement, blocks: Sequence[Block]) -> Iterator[Reading]:
    nanoseconds = sorted(itertools.chain.from_iterable(block.latencies_ns for block in blocks))
    for name, probability in _QUANTILES.items():
        found = quantile_interval(nanoseconds, probability)
        if found is not None:
            yield _reading(name, Interval(*(each / 1e9 for each in found)), _CLOCK)
    if blocks:
        yield _throughput(measurement, blocks)
    energy = _energy(measurement, blocks)
    if energy is not None:
        yield energy


def why_refused(record: Record, name: str) -> str:
    """The reason why a number can't be given though its raw values are there."""
    if record.measurement is None or name not in ("energy_j_per_inference", *_QUANTILES):
        return ""
    blocks = own_blocks(record.measurement, record.role)
    if name == "energy_j_per_inference":
        reads_zero = any("energy_j" in block.raw for block in blocks) and not sum(_energies(blocks)) > 0
        return "the meter read 0 J: the blocks are shorter than it can resolve" if reads_zero else ""
    count = sum(len(block.latencies_ns) for block in blocks)
    needed = smallest_count_for(_QUANTILES[name])
    return f"{count} calls are too few for this quantile: it needs {needed}" if count < needed else ""


def own_blocks(measurement: Measurement, arm: Arm) -> list[Block]:
    return [block for block in measurement.blocks if block.arm == arm]


def score_interval(score: Score) -> tuple[float | None, float | None]:
    """95 % interval of a score on its own: Wilson's for a proportion, none for other metrics."""
    if not score.is_binary:
        return None, None
    interval = proportion_interval(score.value, score.num_samples)
    return interval.low, interval.high


def _throughput(measurement: Measurement, blocks: Sequence[Block]) -> Reading:
    rates = [measurement.batch_size * len(block.latencies_ns) / _seconds(block) for block in blocks]
    count = measurement.batch_size * sum(len(block.latencies_ns) for block in blocks)
    overall = count / sum(_seconds(block) for block in blocks)
    return _reading("throughput_per_s", _around(overall, rates), _CLOCK)


def _energy(measurement: Measurement, blocks: Sequence[Block]) -> Reading | None:
    provenance = measurement.provenance.get("energy_j")
    if provenance is None or any("energy_j" not in block.raw for block in blocks) or not sum(_energies(blocks)) > 0:
        return None
    per_call = [block.raw["energy_j"] / len(block.latencies_ns) / measurement.batch_size for block in blocks]
    count = measurement.batch_size * sum(len(block.latencies_ns) for block in blocks)
    return _reading("energy_j_per_inference", _around(sum(_energies(blocks)) / count, per_call), provenance)


def _energies(blocks: Sequence[Block]) -> list[float]:
    return [block.raw.get("energy_j", 0.0) for block in blocks]


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
    """A reading whose interval holds the spread of the blocks and what the instrument says of itself; never below 0."""
    value = found.value if isinstance(found, Interval) else found
    reason = _why_unbounded(found, provenance)
    low, high = (None, None) if reason or not isinstance(found, Interval) else _bounds(found, provenance)
    return Reading(
        name=name,
        value=value,
        kind=provenance.kind,
        source=provenance.source,
        boundary=provenance.boundary,
        low=low,
        high=high,
        uncertainty_reason=reason,
    )


def _why_unbounded(found: Interval | float, provenance: Provenance) -> str:
    """Why there is no interval; "" if there is one.

    The spread of an estimate says how well it repeats, not how far from the truth it is: without a word from the
    instrument on that it has none.
    """
    if provenance.kind != "measured" and provenance.relative_uncertainty is None:
        return provenance.uncertainty_reason or "not stated"
    return "" if isinstance(found, Interval) else "one block only"


def _bounds(found: Interval, provenance: Provenance) -> tuple[float, float]:
    own = (provenance.relative_uncertainty or 0.0) * found.value
    low = found.value - math.hypot(found.value - found.low, own)
    return max(0.0, low), found.value + math.hypot(found.high - found.value, own)
