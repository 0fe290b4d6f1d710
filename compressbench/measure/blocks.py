"""Interleaved comparison in mirrored rounds of baseline, candidate and control: what drifts or disturbs meets all alike.

Why: on a shared machine one arm after the other calls a difference in 7 to 70 % of comparisons of a workload with itself.
The control is the baseline again, in the same schedule; what differs between the two is noise.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from compressbench.core.garbage import no_garbage_collection
from compressbench.core.progress import Progress, SilentProgress
from compressbench.core.protocols import Between, Clock, Instrument, Provenance
from compressbench.measure.beside import Beside, Ends
from compressbench.measure.calls import Caller, Untimed, time_calls
from compressbench.measure.idle import read_idle
from compressbench.measure.instruments import ENERGY, forget_windows
from compressbench.measure.phases import PhaseLog, joined
from compressbench.measure.schedule import ORDER, Schedule, num_pairs, positions
from compressbench.measure.steady_state import warm_up
from compressbench.measure.working import Working, working
from compressbench.records.evidence import DisturbanceRule, Evidence, disturbed_rounds
from compressbench.records.measurement import Arm, Block, Idle, Measurement, WarmUp

Sleep = Callable[[float], None]
T = TypeVar("T", Block, Idle)


class Watching(Protocol):
    """Looks, outside of the timed calls, at what else the machine does during a block."""

    def before(self) -> None: ...

    def after(self) -> None: ...

    def evidence(self) -> Evidence: ...


class Tools(NamedTuple):
    """What a comparison reads and tells the time with."""

    instruments: Mapping[str, Instrument]
    watcher: Watching | None = None
    clock: Clock = time.perf_counter_ns
    sleep: Sleep = time.sleep


class CallersOfArm(NamedTuple):
    """One caller to warm up with, whose calls leave no trace, and one whose calls are measured."""

    warm_up: Untimed
    timed: Caller

    @classmethod
    def of(cls, make: Callable[[], Untimed]) -> CallersOfArm:
        return cls(make(), make())


class Comparison(NamedTuple):
    """The measurement, and by meter the reason why its numbers are missing from it."""

    measurement: Measurement
    failed: dict[str, str]


def compare(
    arms: Mapping[Arm, CallersOfArm], shape: Mapping[str, Any], schedule: Schedule, tools: Tools, progress: Progress
) -> Comparison:
    """Warm the arms up and run the schedule on them: `baseline`, `candidate` and `control`.

    `shape` are the fields of the measurement that say what is called: batch_size, num_inputs. Instruments and watcher are
    read around every block; the clock around every call, which returns when the device is done.
    """
    run = _Run(arms, schedule, tools, working(tools.instruments), progress)
    gc.collect()
    with no_garbage_collection(), _left_at_rest(run.working):
        run.read_idle("before")
        warm = run.warm_up()
        forget_windows(run.working.open)  # what compilers started in the warm-up is of no window
        run.fill_blocks(warm)
        run.read_within(warm)
        run.measure()
        run.settle()
        run.read_idle("after")
    return Comparison(run.as_measurement(shape, {arm: found for arm, (found, _) in warm.items()}), run.working.failed)


@contextmanager
def _left_at_rest(working: Working) -> Iterator[None]:
    """Whatever a model raises, no meter goes on reading for a window that nobody collects."""
    try:
        yield
    except BaseException:
        forget_windows(working.open)
        raise


class OneBlock(NamedTuple):
    """A block measured on its own, in a process that has no other arm."""

    block: Block
    warm_up: WarmUp
    provenance: dict[str, Provenance]
    failed: dict[str, str]
    evidence: Evidence | None
    harness_overhead_ns: float


def one_block(callers: CallersOfArm, num_calls: int | None, schedule: Schedule, tools: Tools) -> OneBlock:
    """Warm up, and measure one block of so many calls, or of as many as fill it."""
    run = _Run({"baseline": callers}, schedule, tools, working(tools.instruments), SilentProgress())
    gc.collect()
    with no_garbage_collection():
        warm = run.warm_up()
        run.fill_blocks(warm)
        if num_calls is not None:
            run.lengths["baseline"] = num_calls
        run.read_within(warm)
        run.blocks.append(run.block(0, 0, "baseline", itertools.count()))
        run.collect(0)
        run.settle()
    overhead = harness_overhead_ns(tools.clock)
    block = without(run.blocks[0], run.working.untrusted())
    evidence = None if tools.watcher is None else tools.watcher.evidence()
    found = run.working
    return OneBlock(block, warm["baseline"][0], found.provenance(), found.failed, evidence, overhead)


@dataclass
class _Run:
    arms: Mapping[Arm, CallersOfArm]
    schedule: Schedule
    tools: Tools
    working: Working
    progress: Progress
    rule: DisturbanceRule = field(default_factory=DisturbanceRule)
    lengths: dict[Arm, int] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    idle: list[Idle] = field(default_factory=list)
    phases: PhaseLog = field(default_factory=PhaseLog)
    between: dict[int, dict[str, Between]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.beside = Beside(self.working, self.tools.clock)

    def read_idle(self, when: Any) -> None:
        if self.schedule.idle_s and self.working.open:
            self.idle.append(read_idle(self.working.open, self.schedule.idle_s, when, self.tools.sleep))

    def warm_up(self) -> dict[Arm, tuple[WarmUp, float]]:
        """The control is warm when the baseline is: they are one session."""
        found: dict[Arm, tuple[WarmUp, float]] = {}
        cold = [(arm, callers) for arm, callers in self.arms.items() if arm != "control"]
        with self.progress.bar("warm up", len(cold)) as bar:
            for arm, callers in cold:
                found[arm] = warm_up(callers.warm_up, self.tools.clock, self.schedule.warm_up)
                bar.advance()
        return found

    def fill_blocks(self, warm: Mapping[Arm, tuple[WarmUp, float]]) -> None:
        """As many calls per block as fill it; the control has as many as the baseline."""
        block_s = max(self.schedule.block_s, self.working.min_window_s)
        self.lengths = {arm: max(1, round(block_s / median_s)) for arm, (_, median_s) in warm.items()}
        self.lengths["control"] = self.lengths["baseline"]

    def measure(self) -> None:
        counters = {arm: itertools.count() for arm in self.arms}
        with self.progress.bar("measure", self.schedule.rounds) as bar:
            for number in range(self.schedule.rounds + self.schedule.max_extra_rounds):
                if number >= self.schedule.rounds and self._num_clean_rounds(number) >= self.schedule.rounds:
                    break
                self._round(number, counters)
                bar.advance(1 if number < self.schedule.rounds else 0)

    def _round(self, number: int, counters: Mapping[Arm, Iterator[int]]) -> None:
        first = len(self.blocks)
        for position, arm in positions(number):
            self.blocks.append(self.block(number, position, arm, counters[arm]))
        self.collect(first)

    def collect(self, first: int) -> None:
        """Give the blocks from `first` on what the instruments read in them."""
        for at, windows in enumerate(self.working.collect(), start=first):
            found = windows._asdict()
            self.between[at] = found.pop("between")
            self.blocks[at] = self.blocks[at].model_copy(update=found)

    def block(self, number: int, position: int, arm: Arm, counter: Iterator[int]) -> Block:
        call, clock, watcher = self.arms[arm].timed, self.tools.clock, self.tools.watcher
        before = self.beside.lead(self.arms[arm].warm_up, before=True)
        if watcher is not None:
            watcher.before()
        self.working.start()
        try:
            begun_ns = clock()
            latencies = time_calls(call, counter, self.lengths[arm], clock)
            seconds = max(1, clock() - begun_ns) / 1e9
        finally:
            self.working.stop()
        if watcher is not None:
            watcher.after()
        after = self.beside.lead(self.arms[arm].warm_up, before=False)
        block = Block(
            round=number, position=position, arm=arm, latencies_ns=latencies, seconds=seconds, **call.take()._asdict()
        )
        # only generations have phases that its increments could tell apart
        series = self.working.series(begun_ns, begun_ns + sum(block.latencies_ns)) if block.first_token_ns else []
        if series is not None:
            self.phases.add(len(self.blocks), block, begun_ns, joined(before, after), series)
        return block

    def read_within(self, warm: Mapping[Arm, tuple[WarmUp, float]]) -> None:
        """Where no timed block may be read in: some others first, which may be. How far power wanders from one tick of the
        meter to the next, and in generations what prefill and decode need, can only be seen there.
        """
        if not self.working.wants_lead:
            return
        block_s = min(self.lengths[arm] * median_s for arm, (_, median_s) in warm.items())
        is_generation = self.schedule.output_tokens is not None
        order = [arm for arm in ORDER if arm in self.arms]
        order *= num_pairs(self.working.min_window_s, block_s, is_generation=is_generation)
        with self.progress.bar("read the meter in calls", len(order)) as bar:
            for arm in order:
                # one call more than a block has, so that a tick lies wholly in each phase
                self.beside.read_within(arm, self.arms[arm].warm_up, self.lengths[arm] + is_generation)
                bar.advance()

    def settle(self) -> None:
        """Take the blocks' energy from what is known of it, now that all is known of the phases."""
        ends = Ends(self.beside.ticks or self.phases.ticks(self.blocks))
        for each in self.phases.timed:
            between = self.between[each.place].get(ENERGY)
            if between is not None:
                self.blocks[each.place] = ends.divided(self.blocks[each.place], each, between)

    def _num_clean_rounds(self, num_rounds: int) -> int:
        if self.tools.watcher is None:
            return num_rounds
        rounds, arms = [block.round for block in self.blocks], [block.arm for block in self.blocks]
        return num_rounds - len(disturbed_rounds(self.tools.watcher.evidence(), self.rule, rounds, arms))

    def as_measurement(self, shape: Mapping[str, Any], warm: Mapping[Arm, WarmUp]) -> Measurement:
        untrusted, watcher, provenance = self.working.untrusted(), self.tools.watcher, self.working.provenance()
        return Measurement(
            protocol=2,
            tier=self.schedule.tier,
            warm_up=warm,
            blocks=tuple(without(block, untrusted) for block in self.blocks),
            provenance=provenance,
            harness_overhead_ns=harness_overhead_ns(self.tools.clock),
            calls_per_block=self.lengths,
            num_planned_rounds=self.schedule.rounds,
            evidence=None if watcher is None else watcher.evidence(),
            rule=None if watcher is None else self.rule,
            idle=tuple(without(idle, idle.raw.keys() - provenance.keys()) for idle in self.idle),
            phases={} if ENERGY in untrusted else self.phases.energies(self.blocks, self.beside.ticks),
            **shape,
        )


def harness_overhead_ns(clock: Clock, count: int = 1000) -> float:
    """What the loop itself costs per call: the median of an empty body on the same path."""
    return statistics.median(time_calls(lambda index: None, itertools.count(), count, clock))


def without(block: T, names: Collection[str]) -> T:
    """Without these values, and their uncertainties."""
    if not names:
        return block
    fields = {"raw": block.raw, "uncertainties": block.uncertainties}
    kept = {key: {name: each for name, each in value.items() if name not in names} for key, value in fields.items()}
    return block.model_copy(update=kept)
