"""Interleaved comparison: A B B A, B A A B, ... so that whatever drifts or disturbs the machine meets both arms alike.

Why: on a shared machine one arm after the other calls a difference in 7 to 70 % of comparisons of a workload with itself.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from compressbench.core.errors import MeterError
from compressbench.core.garbage import no_garbage_collection
from compressbench.core.progress import Progress
from compressbench.core.protocols import Batch, Clock, Instrument, Session
from compressbench.measure.steady_state import WarmUpRule, warm_up
from compressbench.records.record import Arm, Block, Measurement, WarmUp

_ORDERS: tuple[tuple[Arm, ...], tuple[Arm, ...]] = (
    ("baseline", "candidate", "candidate", "baseline"),
    ("candidate", "baseline", "baseline", "candidate"),
)


class Schedule(NamedTuple):
    """`rounds` of four blocks, each of about `block_s` seconds."""

    rounds: int
    block_s: float
    output_tokens: int | None = None
    warm_up: WarmUpRule = WarmUpRule()

    @property
    def seconds(self) -> float:
        """About how long one comparison takes."""
        return self.rounds * 4 * self.block_s + 2 * (self.warm_up.min_s + self.block_s)


@dataclass
class _Instruments:
    """Block meters that still work. One that fails is dropped with its reason, and with it all that it had read."""

    open: dict[str, Instrument]
    failed: dict[str, str] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)

    def start(self) -> None:
        self._each(lambda name, instrument: instrument.start())

    def stop(self) -> dict[str, float]:
        raw: dict[str, float] = {}

        def read(name: str, instrument: Instrument) -> None:
            values = instrument.stop()
            self.names.setdefault(name, set()).update(values)
            raw.update(values)

        self._each(read)
        return raw

    def _each(self, do: Callable[[str, Instrument], None]) -> None:
        for name, instrument in list(self.open.items()):
            try:
                do(name, instrument)
            except MeterError as error:
                self.failed[name] = str(error)
                del self.open[name]

    def untrusted(self) -> set[str]:
        return {raw for name in self.failed for raw in self.names.get(name, ())}


class Comparison(NamedTuple):
    """The measurement, and by meter the reason why its numbers are missing from it."""

    measurement: Measurement
    failed: dict[str, str]


def compare(
    arms: Mapping[Arm, Session],
    inputs: list[Batch],
    schedule: Schedule,
    instruments: Mapping[str, Instrument],
    progress: Progress,
    clock: Clock = time.perf_counter_ns,
) -> Comparison:
    """Warm both arms up and run the schedule on them, over the same inputs in the same order.

    `instruments` are read around every block; the clock around every call, after the device has been synchronised.
    """
    calls = {arm: _caller(session, inputs, schedule.output_tokens) for arm, session in arms.items()}
    working = _Instruments(dict(instruments))
    gc.collect()
    with no_garbage_collection():
        warm = _warm_up(calls, schedule, progress, clock)
        block_s = max([schedule.block_s, *(instrument.min_window_s for instrument in working.open.values())])
        lengths = {arm: max(1, round(block_s / median)) for arm, (_, median) in warm.items()}
        blocks = list(_run_blocks(calls, lengths, schedule.rounds, working, progress, clock))
    untrusted = working.untrusted()
    measurement = Measurement(
        batch_size=len(next(iter(inputs[0].values()))),
        num_inputs=len(inputs),
        warm_up={arm: found for arm, (found, _) in warm.items()},
        blocks=tuple(_without(block, untrusted) for block in blocks),
        provenance={
            raw: _provenance(instrument, raw)
            for name, instrument in working.open.items()
            for raw in working.names.get(name, ())
        },
        harness_overhead_ns=harness_overhead_ns(clock),
        calls_per_block=lengths,
    )
    return Comparison(measurement, working.failed)


def _warm_up(
    calls: Mapping[Arm, Callable[[int], None]], schedule: Schedule, progress: Progress, clock: Clock
) -> dict[Arm, tuple[WarmUp, float]]:
    found: dict[Arm, tuple[WarmUp, float]] = {}
    with progress.bar("warm up", len(calls)) as bar:
        for arm, call in calls.items():
            found[arm] = warm_up(call, clock, schedule.warm_up)
            bar.advance()
    return found


def _run_blocks(
    calls: Mapping[Arm, Callable[[int], None]],
    lengths: Mapping[Arm, int],
    rounds: int,
    instruments: _Instruments,
    progress: Progress,
    clock: Clock,
) -> Iterator[Block]:
    counters = {arm: itertools.count() for arm in calls}
    with progress.bar("measure", rounds) as bar:
        for number in range(rounds):
            for position, arm in enumerate(_ORDERS[number % 2]):
                call, counter = calls[arm], counters[arm]
                instruments.start()
                latencies = time_calls(call, counter, lengths[arm], clock)
                raw = instruments.stop()
                yield Block(round=number, position=position, arm=arm, latencies_ns=latencies, raw=raw)
            bar.advance()


def time_calls(call: Callable[[int], None], counter: Iterator[int], count: int, clock: Clock) -> tuple[int, ...]:
    """Nanoseconds of each of `count` calls. Nothing but the call stands between two readings of the clock."""
    latencies = [0] * count
    for position in range(count):
        index = next(counter)
        before = clock()
        call(index)
        latencies[position] = clock() - before
    return tuple(latencies)


def harness_overhead_ns(clock: Clock, count: int = 1000) -> float:
    """What the loop itself costs per call: the median of an empty body on the same path."""
    return statistics.median(time_calls(lambda index: None, itertools.count(), count, clock))


def _caller(session: Session, inputs: list[Batch], output_tokens: int | None) -> Callable[[int], None]:
    num_inputs = len(inputs)
    if output_tokens is None:

        def call(index: int) -> None:
            session(inputs[index % num_inputs])
            session.synchronize()
    else:

        def call(index: int) -> None:
            session.generate(inputs[index % num_inputs], output_tokens)
            session.synchronize()

    return call


def _without(block: Block, names: set[str]) -> Block:
    return block.model_copy(update={"raw": {name: value for name, value in block.raw.items() if name not in names}})


def _provenance(instrument: Any, raw: str) -> Any:
    """An instrument with several raw values may give each a provenance of its own."""
    return getattr(instrument, "provenances", {}).get(raw, instrument.provenance)
