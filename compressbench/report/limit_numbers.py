"""How much of what the device can do at most an arm uses: MBU, MFU, and whether overhead hides the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from compressbench.core.protocols import Provenance
from compressbench.core.reading import Reading
from compressbench.core.roofline import Demand, Roof, attained_share, ideal_speed_up, roof
from compressbench.core.statistics import median
from compressbench.records.deployment import work_of
from compressbench.records.measurement import Block
from compressbench.records.record import Record
from compressbench.report.bounded import reading

_HOW = Provenance(
    kind="estimated",
    source="counted work over measured time and measured limits of the device",
    uncertainty_reason="the work is a lower bound, the limit the best of short runs",
)


class UnderRoof(NamedTuple):
    """One phase of a model (forward pass or decode step) under the roof."""

    demand: Demand
    roof: Roof


def under_roof(record: Record, blocks: Sequence[Block]) -> UnderRoof | None:
    """A decode step of what generates, else a forward pass; None where the work or the limits aren't known."""
    if record.work is None or record.limits is None or not blocks:
        return None
    gaps = [gap for block in blocks for gap in block.token_gaps_ns]
    work = work_of(record.work, record.deployment)
    demand = work.decode if gaps else work.forward
    seconds = median(gaps or [each for block in blocks for each in block.latencies_ns]) / 1e9
    if demand is None or seconds <= 0:
        return None
    return UnderRoof(demand, roof(demand, record.limits.ceilings, seconds))


def limit_readings(record: Record, blocks: Sequence[Block]) -> Iterator[Reading]:
    found = under_roof(record, blocks)
    if found is None:
        return
    how = _HOW.model_copy(update={"source": "; ".join([_HOW.source, *found.roof.notes])})
    yield reading("mbu", found.roof.mbu, how)
    if found.roof.mfu is not None:
        yield reading("mfu", found.roof.mfu, how)


def why_refused(record: Record) -> str:
    if record.limits is None:
        return "the limits of the device were not measured"
    if record.work is None or record.work.forward is None:
        return record.work.reason if record.work is not None else "the work of the model was not counted"
    return "no matrix rate of the model's data types was measured"


def overhead(record: Record, blocks: Sequence[Block]) -> str:
    """The mark of a row whose time is mostly overhead; "" if it isn't, or if nobody knows."""
    found = under_roof(record, blocks)
    if found is None or not found.roof.is_overhead_bound or found.roof.ideal_s is None:
        return ""
    return f"the roofline explains {100 * (1 - (found.roof.overhead_share or 0)):.0f} % of the time: {found.roof.notes[-1]}"


def attained(record: Record, baseline: Record, speed_up: float, blocks: Sequence[Block]) -> float | None:
    """The measured speed-up over that of the ideal times (of bytes, where both are memory-bound); None if unknown."""
    ours, theirs = under_roof(record, blocks), under_roof(baseline, blocks)
    if ours is None or theirs is None or record.limits is None:
        return None
    ideal = ideal_speed_up(theirs.demand, ours.demand, record.limits.ceilings)
    return None if ideal is None else attained_share(speed_up, ideal)
