"""What is done beside timed blocks for meters that must not be read within them (design/0024)."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compressbench.core.instruments import SPREAD_OF_A_TICK
from compressbench.core.protocols import Clock
from compressbench.measure.calls import Untimed
from compressbench.measure.instruments import ENERGY
from compressbench.measure.phases import Spans, Tick, overlap_s, phase_energy, spans_of, ticks
from compressbench.measure.working import Working
from compressbench.records.measurement import Arm, Block, PhaseEnergy

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
            stamps = [self.clock()]
            for index in range(count):
                call(index)
                stamps.append(self.clock())
        finally:
            self.working.stop()
        latencies = [later - earlier for earlier, later in itertools.pairwise(stamps)]
        block = Block(round=0, position=0, arm=arm, latencies_ns=tuple(latencies), **call.take()._asdict())
        series = self.working.series(stamps[0], stamps[-1])
        (window,) = self.working.collect()
        found = self.ticks.setdefault(arm, [])
        if series is not None and ENERGY in window.raw:
            found.extend(ticks(series, spans_of(block, stamps[0]), stamps[0], stamps[-1]))


class Ends:
    """Divides what a meter counted between two increments, of which one lies before a block and one after it."""

    def __init__(self, ticks: Mapping[Arm, Sequence[Tick]]) -> None:
        self._ticks = ticks
        self._phases = {arm: phase_energy(found, []) for arm, found in ticks.items()}

    def divided(self, block: Block, begun_ns: int, ends_s: tuple[float, float], beside: Spans) -> Block:
        """The block with its joules, and their uncertainty, for what its calls and those `beside` it did.

        In proportion to time, and where prefill and decode can be told apart, to their powers.
        """
        joules, own_s = block.raw[ENERGY], block.seconds or 0.0
        ended_ns = begun_ns + round(1e9 * own_s)
        total_j = joules / own_s * (own_s + sum(ends_s))
        extra = self._excess(block.arm)
        own = own_s + extra * sum(block.first_token_ns) / 1e9
        beside_s = sum(ends_s)
        for begin, end in (
            (begun_ns - round(1e9 * ends_s[0]), begun_ns),
            (ended_ns, ended_ns + round(1e9 * ends_s[1])),
        ):
            beside_s += extra * overlap_s(beside.prefill, begin, end)
        divided_j = total_j * own / (own + beside_s)
        wider = math.sqrt(max(0.0, self._spread(block.arm) ** 2 - SPREAD_OF_A_TICK**2))
        uncertainty_j = math.hypot(block.uncertainties[ENERGY], wider * joules / own_s * math.hypot(*ends_s))
        return block.model_copy(
            update={
                "raw": {**block.raw, ENERGY: divided_j},
                "uncertainties": {**block.uncertainties, ENERGY: uncertainty_j},
            }
        )

    def _phases_of(self, arm: Arm) -> PhaseEnergy | None:
        """The control is the baseline's session."""
        return self._phases.get("baseline" if arm == "control" else arm)

    def _excess(self, arm: Arm) -> float:
        """By how much the power of prefill is above that of decode, as a share of the latter; 0 if nobody knows."""
        phases = self._phases_of(arm)
        if phases is None or phases.prefill_w is None or phases.decode_w is None:
            return 0.0
        return phases.prefill_w / phases.decode_w - 1

    def _spread(self, arm: Arm) -> float:
        """How far power wanders from one tick to the next around what is known of it, relative."""
        found = self._ticks.get("baseline" if arm == "control" else arm, ())
        if len(found) < 3:
            return 0.0
        excess = self._excess(arm)
        watts = [tick.joules / (tick.prefill_s * (1 + excess) + tick.decode_s) for tick in found]
        return statistics.stdev(watts) / statistics.mean(watts)
