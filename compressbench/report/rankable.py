"""What keeps a row out of a ranking, and what a reader should know of one that stays in."""

from __future__ import annotations

from collections.abc import Iterator

from compressbench.records.crosscheck import disagreement
from compressbench.records.evidence import contention, disturbances
from compressbench.records.measurement import Measurement
from compressbench.records.record import Record

# a loop that costs more than this share of a call shows in the call's latency
MAX_OVERHEAD_SHARE = 0.001


def not_rankable(record: Record) -> tuple[str, ...]:
    """The reasons why a row's costs can't be ranked; none for a sound one."""
    measurement = record.measurement
    if measurement is None:
        return ()
    return (*_not_steady(measurement), *_contended(measurement), *_not_finite(measurement))


def warnings(record: Record) -> tuple[str, ...]:
    measurement = record.measurement
    if measurement is None:
        return ()
    meters = disagreement(measurement)
    return (*_overhead(measurement), *_not_repeatable(measurement), *([meters] if meters else []))


def _not_steady(measurement: Measurement) -> Iterator[str]:
    for arm, found in measurement.warm_up.items():
        if found.steady_state != "yes":
            detail = f": {found.reason}" if found.reason else ""
            yield f"the {arm} did not reach a steady state in {found.num_calls} calls{detail}"


def _contended(measurement: Measurement) -> Iterator[str]:
    if measurement.evidence is None or measurement.rule is None:
        return
    arms = [block.arm for block in measurement.blocks]
    why = contention(disturbances(measurement.evidence, measurement.rule, len(arms), arms), measurement.rule)
    if why:
        yield f"contended: {why}"


def _not_finite(measurement: Measurement) -> Iterator[str]:
    for arm, count in measurement.num_blocks_not_finite.items():
        num_blocks = sum(block.arm == arm for block in measurement.blocks)
        yield f"{count} of {num_blocks} timed blocks of the {arm} ended with logits that are not finite"


def _overhead(measurement: Measurement) -> Iterator[str]:
    shortest = min(min(block.latencies_ns) for block in measurement.blocks)
    share = measurement.harness_overhead_ns / shortest
    if share > MAX_OVERHEAD_SHARE:
        yield f"the loop costs {100 * share:.2g} % of a call ({measurement.harness_overhead_ns:.0f} ns)"


def _not_repeatable(measurement: Measurement) -> Iterator[str]:
    for arm, outputs in measurement.outputs.items():
        if outputs.is_repeatable is False:
            yield f"the {arm} answered the same input differently in two timed calls"
