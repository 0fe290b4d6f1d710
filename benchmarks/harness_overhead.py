"""What does the measuring loop add to a call, and to the time between calls?

    python benchmarks/harness_overhead.py              # about 80 s
    python benchmarks/harness_overhead.py --rounds 10  # quick

Three loops take turns in the protocol's order (A B C C B A, ...) on an empty body and on one of about 1 ms of fixed work:
`bare`, the shortest loop that times every call; `harness`, the package's own `time_calls` between `before` and `after` of
its Watcher; and `untimed`, which reads the clock before the first call and after the last. Ratios have Student's 95 %
intervals over rounds: the median that the harness measures over that of the bare loop, and the wall time per call in the
harness over the untimed loop. The target is 0.5 % for both at 1 ms. An empty body takes a few readings of the clock, and
its median is a whole number of the clock's steps. Then what the Watcher itself takes per block.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from compressbench.core.garbage import no_garbage_collection
from compressbench.core.statistics import Interval, log_ratio_interval
from compressbench.measure.calls import time_calls
from compressbench.measure.interference import Watcher
from compressbench.measure.schedule import order_of
from compressbench.records.measurement import Arm

BLOCK_S, WORK_S, NUM_ROUNDS, MAX_CALLS = 0.1, 1e-3, 100, 20_000
Call = Callable[[int], None]
clock = time.perf_counter_ns


class Block(NamedTuple):
    """Median of the calls, where they were timed, and wall time per call, in ns."""

    median_ns: float
    wall_ns: float


def bare(call: Call, count: int, _: Watcher) -> Block:
    taken = [0] * count
    begun = clock()
    for index in range(count):
        before = clock()
        call(index)
        taken[index] = clock() - before
    return Block(statistics.median(taken), (clock() - begun) / count)


def harness(call: Call, count: int, watcher: Watcher) -> Block:
    counter = itertools.count()
    watcher.before()
    begun = clock()
    latencies = time_calls(call, counter, count, clock)
    wall_ns = clock() - begun
    watcher.after()
    return Block(statistics.median(latencies), wall_ns / count)


def untimed(call: Call, count: int, _: Watcher) -> Block:
    begun = clock()
    for index in range(count):
        call(index)
    wall_ns = (clock() - begun) / count
    return Block(wall_ns, wall_ns)


LOOPS: dict[Arm, Callable[[Call, int, Watcher], Block]] = {"baseline": bare, "candidate": harness, "control": untimed}


def empty(_: int) -> None:
    pass


def summing(size: int) -> Call:
    """Always the same additions."""
    numbers = range(size)

    def call(_: int) -> None:
        sum(numbers)

    return call


def fixed_work() -> Call:
    """A sum over so many whole numbers that it takes about a millisecond."""
    size = 1000
    while _seconds(summing(size)) < WORK_S:
        size = size * 9 // 8
    return summing(size)


def _seconds(call: Call) -> float:
    return min(time_calls(call, itertools.count(), 20, clock)) / 1e9


def measure(name: str, call: Call, num_rounds: int) -> None:
    watcher, count = Watcher(), min(MAX_CALLS, round(BLOCK_S / _seconds(call)))
    for loop in LOOPS.values():
        loop(call, count, watcher)
    found: dict[Arm, list[list[Block]]] = {arm: [] for arm in LOOPS}
    with no_garbage_collection():
        for number in range(num_rounds):
            of_round: dict[Arm, list[Block]] = {arm: [] for arm in LOOPS}
            for arm in order_of(number):
                of_round[arm].append(LOOPS[arm](call, count, watcher))
            for arm, blocks in of_round.items():
                found[arm].append(blocks)
    watcher.close()
    medians = {arm: [_mean(block.median_ns for block in blocks) for blocks in rounds] for arm, rounds in found.items()}
    walls = {arm: [_mean(block.wall_ns for block in blocks) for blocks in rounds] for arm, rounds in found.items()}
    print(f"{name}: {num_rounds} rounds, {count} calls per block")
    _print("median of calls, harness / bare", medians["baseline"], medians["candidate"])
    _print("wall per call, harness / untimed", walls["control"], walls["candidate"])
    _print("wall per call, bare / untimed", walls["control"], walls["baseline"])


def _mean(values: Iterable[float]) -> float:
    return statistics.geometric_mean(values)


def _print(what: str, theirs: list[float], ours: list[float]) -> None:
    ratio: Interval = log_ratio_interval(theirs, ours)
    below, above = statistics.median(theirs), statistics.median(ours)
    difference = statistics.median(b - a for a, b in zip(theirs, ours, strict=True))
    print(
        f"  {what:34} {ratio.value:.5f} [{ratio.low:.5f}, {ratio.high:.5f}]   {below:.1f} -> {above:.1f} ns "
        f"(median difference {difference:+.1f} ns)"
    )


def watcher_cost(num_blocks: int = 2000) -> None:
    watcher, taken = Watcher(), list[int]()
    for _ in range(num_blocks):
        begun = clock()
        watcher.before()
        watcher.after()
        taken.append(clock() - begun)
    watcher.close()
    ordered = sorted(taken)
    at = {
        name: ordered[int(share * num_blocks)] / 1e3 for name, share in (("median", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
    print(f"watcher, before and after a block: {', '.join(f'{name} {value:.0f} us' for name, value in at.items())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS)
    given = parser.parse_args()
    measure("empty body", empty, given.rounds)
    measure("body of 1 ms", fixed_work(), given.rounds)
    watcher_cost()


if __name__ == "__main__":
    main()
