"""The numbers of one record, computed from its raw values when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compressbench.core.reading import Reading
from compressbench.core.statistics import proportion_interval
from compressbench.records.measurement import Block, Measurement
from compressbench.records.record import Record, Role
from compressbench.records.score import Score
from compressbench.report import energy_numbers, limit_numbers, speed_numbers
from compressbench.report.bounded import reading


def numbers_of(record: Record) -> dict[str, Reading]:
    """Every number of a record by its name; what isn't there has no key."""
    found = {each.name: each for each in record.readings}
    if record.measurement is not None:
        found |= {each.name: each for each in _measured(record, record.measurement)}
    return found


def _measured(record: Record, measurement: Measurement) -> Iterator[Reading]:
    blocks = own_blocks(measurement, record.role)
    if not blocks:
        return
    yield from _of_arm(record, measurement, record.role, blocks)
    yield from limit_numbers.limit_readings(record, blocks)
    warm_up = measurement.warm_up.get(record.role)
    if warm_up is not None:
        yield reading("first_call_seconds", warm_up.first_call_s, speed_numbers.CLOCK)


def _of_arm(record: Record, measurement: Measurement, role: Role, blocks: Sequence[Block]) -> Iterator[Reading]:
    yield from speed_numbers.speed_readings(blocks, batch_of(measurement, role))
    yield from energy_numbers.energy_readings(measurement, _arm(record, measurement, role))
    yield from speed_numbers.server_readings(measurement, role)


def baseline_beside(record: Record) -> dict[str, float]:
    """What the baseline took in the blocks between a candidate's own, by the names of numbers."""
    measurement = record.measurement
    blocks = [] if measurement is None else own_blocks(measurement, "baseline")
    if measurement is None or not blocks:
        return {}
    return {each.name: each.value for each in _of_arm(record, measurement, "baseline", blocks)}


def why_refused(record: Record, name: str) -> str:
    """The reason why a number can't be given though its raw values are there."""
    if record.measurement is None:
        return ""
    if "energy" in name:
        return energy_numbers.why_refused(record.measurement, _arm(record, record.measurement, record.role), name)
    if name in ("mbu", "mfu"):
        return limit_numbers.why_refused(record)
    return speed_numbers.why_refused(record.measurement, own_blocks(record.measurement, record.role), name)


def own_blocks(measurement: Measurement, arm: Role) -> list[Block]:
    return [block for block in measurement.blocks if block.arm == arm]


def batch_of(measurement: Measurement, arm: Role) -> int:
    return measurement.batch_sizes.get(arm, measurement.batch_size)


def score_interval(score: Score) -> tuple[float | None, float | None]:
    """95 % interval of a score on its own: Wilson's for a proportion, none for other metrics."""
    if not score.is_binary or score.value is None or not score.num_samples or not 0 <= score.value <= 1:
        return None, None  # what can't be a proportion is said to be implausible elsewhere
    interval = proportion_interval(score.value, score.num_samples)
    return interval.low, interval.high


def _arm(record: Record, measurement: Measurement, role: Role) -> energy_numbers.Arm:
    return energy_numbers.Arm(
        role,
        own_blocks(measurement, role),
        batch_of(measurement, role),
        int(record.workload["sequence_length"]),
        measurement.outputs.get(role),
    )
