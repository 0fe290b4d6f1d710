"""What is done beside timed blocks for meters that must not be read within them (design/0024)."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from compressbench.core.instruments import SPREAD_OF_A_TICK
from compressbench.core.protocols import Between, Clock
from compressbench.measure.calls import Untimed, time_calls
from compressbench.measure.instruments import ENERGY
from compressbench.measure.phases import OfBlock, Spans, Tick, joined, overlap_s, phase_energy, spans_of, ticks
from compressbench.measure.working import Working
from compressbench.records.measurement import Arm, Block

MAX_LEAD_NS = 2_000_000_000
# leads in which the meter wasn't seen to move, one after the other, after which it is given up
MAX_LATE = 4
LATE = "its counter was not seen to move within 2 s of calls beside the timed blocks, where alone it may be read"


@dataclass
class Beside:
    """Untimed calls of the arms: those that lead in and out of blocks, and some in which meters are read: their `ticks`."""

    working: Working
    clock: Clock
    ticks: dict[Arm, list[Tick]] = field(default_factory=dict)
    _num_late: int = 0

    def lead(self, call: Untimed, *, before: bool) -> Spans:
        """Work as the block's goes on until the meters that want it have seen enough. The phases of its generations."""
        is_over, clock, spans = self.working.lead(before=before), self.clock, Spans([], [])
        if is_over is None:
            return spans
        until_ns = clock() + MAX_LEAD_NS
        for index in itertools.count():
            begun_ns = clock()
            first_ns = call.until(index, is_over)
            if first_ns is not None:
                spans.prefill.append((begun_ns, begun_ns + first_ns))
                spans.decode.append((begun_ns + first_ns, clock()))
            if is_over():
                self._num_late = 0
                return spans
            if clock() > until_ns:
                break
        self._num_late += 1
        if self._num_late >= MAX_LATE:
            self.working.give_up_leads(LATE)
        return spans

    def read_within(self, arm: Arm, call: Untimed, count: int) -> None:
        """So many calls in which the meters are read."""
        call.take()
        self.working.start()
        try:
            begun_ns = self.clock()
            latencies = time_calls(call, itertools.count(), count, self.clock)
        finally:
            self.working.stop()
        block = Block(round=0, position=0, arm=arm, latencies_ns=latencies, **call.take()._asdict())
        ended_ns = begun_ns + sum(latencies)
        series = self.working.series(begun_ns, ended_ns)
        (window,) = self.working.collect()
        found = self.ticks.setdefault(arm, [])
        if series is not None and ENERGY in window.raw:
            found.extend(ticks(series, spans_of(block, begun_ns), begun_ns, ended_ns))


class Powers(NamedTuple):
    """By how much the power of prefill is above that of decode, as a share of the latter (0 if nobody knows), and how far
    power wanders from one tick to the next around these two, relative.
    """

    excess: float = 0.0
    spread: float = 0.0


def _powers_of(found: Sequence[Tick]) -> Powers:
    phases = phase_energy(found, [])
    excess = 0.0
    if phases.prefill_w is not None and phases.decode_w is not None:
        excess = phases.prefill_w / phases.decode_w - 1
    if len(found) < 3:
        return Powers(excess)
    watts = [tick.joules / (tick.prefill_s * (1 + excess) + tick.decode_s) for tick in found]
    return Powers(excess, statistics.stdev(watts) / statistics.mean(watts))


class Ends:
    """Takes the energy of a block from that between two increments of the meter, of which none is just at its ends.

    What lies between an end and an increment belongs to a call, and in a generation prefill needs another power than
    decoding: a block always begins with one and is always followed by the next one. So what was counted is divided as the
    `ticks` of an arm, by which the two are told apart, say.
    """

    def __init__(self, ticks: Mapping[Arm, Sequence[Tick]]) -> None:
        self._powers = {arm: _powers_of(found) for arm, found in ticks.items()}

    def divided(self, block: Block, of_block: OfBlock, between: Between) -> Block:
        """The block with its joules and their uncertainty. As it is, where the counter was read within and phases aren't
        told apart: then its nearest increments say more about the ends.
        """
        # the control is the baseline's session
        excess, spread = self._powers.get(block.arm) or self._powers.get("baseline") or Powers()
        is_quiet = between.begins_s < 0
        if not excess and not is_quiet:
            return block
        begin_ns, end_ns = of_block.begun_ns, of_block.begun_ns + round(1e9 * (block.seconds or 0.0))
        first_ns, last_ns = begin_ns + round(1e9 * between.begins_s), end_ns + round(1e9 * between.ends_s)
        prefill = joined(of_block.spans, of_block.beside).prefill

        def weight(begin: int, end: int) -> float:
            return (end - begin) / 1e9 + excess * overlap_s(prefill, begin, end)

        share = weight(begin_ns, end_ns) / weight(first_ns, last_ns)
        watts = between.value / (last_ns - first_ns) * 1e9
        ends_j = max(spread, SPREAD_OF_A_TICK) * watts * math.hypot(between.begins_s, between.ends_s)
        return block.model_copy(
            update={
                "raw": {**block.raw, ENERGY: share * between.value},
                "uncertainties": {**block.uncertainties, ENERGY: math.hypot(share * between.uncertainty, ends_j)},
            }
        )
