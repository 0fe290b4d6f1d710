"""Energy of one arm per unit of work, from the windows of its blocks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from compressbench.core.protocols import Provenance
from compressbench.core.reading import Reading
from compressbench.core.statistics import Interval
from compressbench.core.units import JOULES_PER_KWH
from compressbench.records.idle_power import OF_THIS_PROCESS, Net, net_of
from compressbench.records.measurement import Block, Measurement, Outputs, PhaseEnergy
from compressbench.records.record import Role
from compressbench.report.bounded import of_rounds, reading
from compressbench.report.paired import MAX_VOID_SHARE
from compressbench.report.speed_numbers import NO_GENERATION

ENERGY = "energy_j"
_Z95 = 1.959963984540054
_J_PER_WH = JOULES_PER_KWH / 1000


class Arm(NamedTuple):
    """The blocks of one arm, samples per call, and tokens that go in per sample."""

    name: Role
    blocks: Sequence[Block]
    batch_size: int
    input_tokens: int
    outputs: Outputs | None = None


def energy_readings(measurement: Measurement, arm: Arm) -> Iterator[Reading]:
    """Joules per inference, token and correct answer; nothing where the windows don't give it."""
    how = measurement.provenance.get(ENERGY)
    blocks = windows_with(arm.blocks, ENERGY)
    if how is None or not blocks:
        return
    per_inference = _per(blocks, lambda block: _samples(block, arm))
    if per_inference is None:
        return
    window_s = _shortest(blocks)
    yield reading("energy_j_per_inference", per_inference, how, window_s=window_s)
    yield reading("energy_wh_per_1000_queries", _scaled(per_inference, 1000 / _J_PER_WH), how, window_s=window_s)
    net = net_of(measurement, blocks)
    if net.joules is not None and net.uncertainty_j is not None:
        yield reading("energy_net_j_per_inference", _net_per(net, blocks, arm), how, window_s=window_s)
    yield from _of_tokens(blocks, arm, how, window_s)
    yield from _of_phases(measurement.phases.get(arm.name), blocks, arm, how, window_s)
    per_correct = _per_correct(per_inference, arm.outputs)
    if per_correct is not None:
        yield reading("energy_j_per_correct", per_correct, how, window_s=window_s)


def windows_with(blocks: Sequence[Block], name: str) -> list[Block]:
    """The blocks that have the value; none of them if too many lack it for the others to stand for all."""
    found = [block for block in blocks if name in block.raw]
    return found if len(found) >= (1 - MAX_VOID_SHARE) * len(blocks) else []


def why_refused(measurement: Measurement, arm: Arm, name: str) -> str:
    """Why a number of energy isn't there though windows were marked; "" if nobody knows."""
    if ("token" in name or "prefill" in name) and not any(block.num_tokens for block in arm.blocks):
        return NO_GENERATION
    why = _why_no_energy(arm.blocks)
    if why:
        return why
    if "_net_" in name:
        return net_of(measurement, arm.blocks).reason
    if name.endswith("_per_correct"):
        return (
            "no timed output has a known right answer"
            if not (arm.outputs and arm.outputs.num_scored)
            else "none is right"
        )
    if "prefill" in name or "decode" in name:
        phases = measurement.phases.get(arm.name)
        return phases.reason if phases is not None else "the meter doesn't keep when it moved"
    return ""


def _why_no_energy(blocks: Sequence[Block]) -> str:
    """The reason that most windows give for having no energy, and how many there are; "" if there is none."""
    if any(ENERGY in block.raw for block in blocks) and not sum(block.raw.get(ENERGY, 0.0) for block in blocks) > 0:
        return "the meter read 0 J: the blocks are shorter than it can resolve"
    reasons = Counter(reason for block in blocks for reason in block.void.values())
    if windows_with(blocks, ENERGY) or not reasons:
        return ""
    reason, count = reasons.most_common(1)[0]
    return f"{count} of {len(blocks)} windows have no energy: {reason}"


def _net_per(net: Net, blocks: Sequence[Block], arm: Arm) -> Interval:
    count = sum(_samples(block, arm) for block in blocks)
    value, half = (net.joules or 0.0) / count, _Z95 * (net.uncertainty_j or 0.0) / count
    return Interval(value, value - half, value + half)


def _of_tokens(blocks: Sequence[Block], arm: Arm, how: Provenance, window_s: float | None) -> Iterator[Reading]:
    if not all(block.num_tokens for block in blocks):
        return
    counts: dict[str, Callable[[Block], float]] = {
        "energy_j_per_output_token": lambda block: _tokens(block, arm),
        "energy_j_per_total_token": lambda block: _tokens(block, arm) + _samples(block, arm) * arm.input_tokens,
    }
    for name, count_of in counts.items():
        found = _per(blocks, count_of)
        if found is not None:
            yield reading(name, found, how, window_s=window_s)


def _of_phases(
    phases: PhaseEnergy | None, blocks: Sequence[Block], arm: Arm, how: Provenance, window_s: float | None
) -> Iterator[Reading]:
    """Prefill and decode: by regression on the meter's ticks, or an estimate from CPU time divided as that time was."""
    counts = {
        "energy_prefill_j_per_inference": sum(_samples(block, arm) for block in arm.blocks),
        "energy_decode_j_per_output_token": sum(_tokens(block, arm) - _samples(block, arm) for block in arm.blocks),
    }
    if phases is not None and phases.prefill_w is not None and phases.decode_w is not None:
        where = " beside the timed calls" if phases.is_beside else ""
        by_ticks = _with_source(how, f"regression on {phases.num_ticks} ticks{where}")
        of_phase = (
            (phases.prefill_w, phases.prefill_uncertainty_w or 0.0, phases.prefill_s),
            (phases.decode_w, phases.decode_uncertainty_w or 0.0, phases.decode_s),
        )
        for (name, count), (watts, uncertainty, seconds) in zip(counts.items(), of_phase, strict=True):
            if count:
                value, half = watts * seconds / count, _Z95 * uncertainty * seconds / count
                yield reading(name, Interval(value, value - half, value + half), by_ticks, window_s=window_s)
    elif OF_THIS_PROCESS in how.boundary and all(block.prefill_cpu_share is not None for block in blocks):
        divided = _with_source(how, "divided by CPU time before and after the first token")
        shares = [[block.raw[ENERGY] * share for block, share in _cpu_shares(blocks, name)] for name in counts]
        for (name, count), joules in zip(counts.items(), shares, strict=True):
            if count and len(blocks) == len(arm.blocks):
                yield reading(name, sum(joules) / count, divided, window_s=window_s)


def _cpu_shares(blocks: Sequence[Block], name: str) -> Iterator[tuple[Block, float]]:
    for block in blocks:
        share = block.prefill_cpu_share or 0.0
        yield block, share if "prefill" in name else 1 - share


def _with_source(how: Provenance, more: str) -> Provenance:
    return how.model_copy(update={"source": f"{how.source}; {more}"})


def _per(blocks: Sequence[Block], count_of: Callable[[Block], float]) -> Interval | float | None:
    """All joules over all units, with the spread of the rounds and the uncertainty of their windows."""
    joules = [block.raw[ENERGY] for block in blocks]
    counts = [count_of(block) for block in blocks]
    if not sum(joules) > 0 or not min(counts) > 0:
        return None
    found = of_rounds(joules, counts, [block.round for block in blocks])
    windows = math.hypot(*(block.uncertainties.get(ENERGY, 0.0) for block in blocks)) / sum(counts)
    if not isinstance(found, Interval):
        return found
    half = math.hypot(found.high - found.value, _Z95 * windows)
    return Interval(found.value, found.value - half, found.value + half)


def _per_correct(per_inference: Interval | float, outputs: Outputs | None) -> Interval | float | None:
    """Over the share of right answers among the timed outputs, by the delta method; None without right answers."""
    if outputs is None or not outputs.num_correct:
        return None
    share = outputs.num_correct / outputs.num_scored
    if not isinstance(per_inference, Interval):
        return per_inference / share
    relative = math.hypot(
        (per_inference.high - per_inference.value) / per_inference.value,
        _Z95 * math.sqrt((1 - share) / (share * outputs.num_scored)),
    )
    value = per_inference.value / share
    return Interval(value, value * (1 - relative), value * (1 + relative))


def _scaled(found: Interval | float, factor: float) -> Interval | float:
    return Interval(*(each * factor for each in found)) if isinstance(found, Interval) else found * factor


def _samples(block: Block, arm: Arm) -> int:
    return len(block.latencies_ns) * arm.batch_size


def _tokens(block: Block, arm: Arm) -> int:
    return sum(block.num_tokens) * arm.batch_size


def _shortest(blocks: Sequence[Block]) -> float | None:
    seconds = [block.seconds for block in blocks if block.seconds is not None]
    return min(seconds, default=None)
