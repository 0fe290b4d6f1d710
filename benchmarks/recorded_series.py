"""Records a long series of short blocks of one and the same body, alone or beside processes that burn CPU.

    python benchmarks/recorded_series.py out/series --burners 1                  # A/A: every block runs the same
    python benchmarks/recorded_series.py out/series --slowdown 0.03 --block-s 0.25 --seconds 220

aa_false_positives.py and injected_slowdown.py draw runs from what is written: one .npz per recording, never overwritten.
A recording ends after --blocks blocks or --seconds seconds. A burner is a Python process that counts, at nice 0; it ends
with this script however that ends. The arms' order is the protocol's: A B C C B A, B C A A C B, C A B B A C.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compressbench.core.garbage import no_garbage_collection
from compressbench.measure.calls import time_calls
from compressbench.measure.interference import Watcher
from compressbench.measure.schedule import ARMS, order_of
from compressbench.records.evidence import Evidence
from compressbench.records.measurement import Arm, Block, Measurement

BLOCKS_PER_ROUND = 2 * len(ARMS)
CALLS_PER_BLOCK = 5
NUM_UNITS = 100  # of work in a call: 3 % more is 3 more
WARM_UP_S = 2.0
Call = Callable[[int], None]
# a parent that was killed can't end its burners: they look whether it's still there
_BURN = """
import os, sys
parent = int(sys.argv[1])
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


class Series(NamedTuple):
    """Calls of all blocks in order, whole rounds: latencies_ns is blocks x calls; `begun_ns` when each block began.

    `slowdown` is the candidate's true one, known from the units of work of both; 0 in an A/A series.
    """

    latencies_ns: npt.NDArray[np.int64]
    begun_ns: npt.NDArray[np.int64]
    body: str
    num_burners: int
    slowdown: float
    evidence: str

    @property
    def num_rounds(self) -> int:
        return len(self.begun_ns) // BLOCKS_PER_ROUND

    @property
    def round_s(self) -> float:
        """Mean wall time of a round, everything between its blocks included."""
        return float(self.begun_ns[-1] - self.begun_ns[0]) / 1e9 / (len(self.begun_ns) - 1) * BLOCKS_PER_ROUND


def linear(num_units: int) -> Call:
    """A linear layer 192 -> 192 on 16 rows for a unit, one thread: about 2 ms a call on a 2.6 GHz EPYC."""
    import torch

    torch.set_num_threads(1)
    layer, rows = torch.nn.Linear(192, 192), torch.randn(16, 192)

    def call(_: int) -> None:
        with torch.inference_mode():
            for _unit in range(num_units):
                layer(rows)

    return call


def encoder(num_units: int) -> Call:
    """Two layers shaped as MiniLM's (384 wide, 12 heads) on 16 tokens, one thread: a layer is 50 units."""
    import torch

    torch.set_num_threads(1)
    layer = torch.nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True).eval()
    rows = torch.randn(1, 16, 384)
    if num_units % 50:
        raise SystemExit("the body 'encoder' can't be made a few percent slower; use another one")

    def call(_: int) -> None:
        with torch.inference_mode():
            for _layer in range(num_units // 50):
                layer(rows)

    return call


def numpy(num_units: int) -> Call:
    """65,536 products of floats for a unit, no thread but ours."""
    values, other, out = (np.linspace(0.0, 1.0, 65_536) for _ in range(3))

    def call(_: int) -> None:
        for _unit in range(num_units):
            np.multiply(values, other, out=out)

    return call


BODIES: dict[str, Callable[[int], Call]] = {"linear": linear, "encoder": encoder, "numpy": numpy}


@contextmanager
def burners(count: int) -> Iterator[None]:
    """So many processes that count for as long as the block lasts; ended on Ctrl-C and SIGTERM too."""

    def stop(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    children = [subprocess.Popen([sys.executable, "-c", _BURN, str(os.getpid())]) for _ in range(count)]
    try:
        time.sleep(0.5 if count else 0.0)
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()
        signal.signal(signal.SIGTERM, before)


def record(calls: Mapping[Arm, Call], num_rounds: int, seconds: float, calls_per_block: int) -> tuple[Any, Any]:
    """Latencies and beginnings of the blocks of whole rounds. Arms that run the same may share one call."""
    latencies, begun, counter, clock = list[tuple[int, ...]](), list[int](), itertools.count(), time.perf_counter_ns
    end_ns = clock() + round(seconds * 1e9)
    with no_garbage_collection():
        for number in range(num_rounds):
            for arm in order_of(number):
                begun.append(clock())
                latencies.append(time_calls(calls[arm], counter, calls_per_block, clock))
            if clock() > end_ns:
                break
    return np.array(latencies, dtype=np.int64), np.array(begun, dtype=np.int64)


def warm_up(call: Call, seconds: float) -> float:
    """Seconds that a call takes in the end (median of the last 100)."""
    taken: list[int] = []
    end_ns = time.perf_counter_ns() + round(seconds * 1e9)
    while time.perf_counter_ns() < end_ns or len(taken) < 100:
        taken += time_calls(call, itertools.count(), 10, time.perf_counter_ns)
    return statistics.median(taken[-100:]) / 1e9


def run_of(series: Series, first_block: int, rounds: int, group: int = 1) -> Measurement:
    """A run cut out of a series: `rounds` rounds from this block on, as a measurement of protocol 2.

    Of an A/A series `group` neighbouring blocks become one, since all are of the same body: so runs have the block
    lengths of the tiers. A series with a slowdown has the arms that it was recorded with.
    """
    count = rounds * BLOCKS_PER_ROUND * group
    if series.slowdown and (group > 1 or first_block % BLOCKS_PER_ROUND):
        raise SystemExit("a series with a slowdown can only be cut at its rounds")
    calls = series.latencies_ns[first_block : first_block + count].reshape(rounds * BLOCKS_PER_ROUND, -1)
    first_round = first_block // BLOCKS_PER_ROUND if series.slowdown else 0
    arms = [arm for number in range(first_round, first_round + rounds) for arm in order_of(number)]
    blocks = [
        Block.model_construct(
            round=at // BLOCKS_PER_ROUND, position=at % BLOCKS_PER_ROUND, arm=arm, latencies_ns=(value,)
        )
        for at, (arm, value) in enumerate(zip(arms, np.median(calls, axis=1).tolist(), strict=True))
    ]
    fields: dict[str, Any] = {"protocol": 2, "batch_size": 1, "batch_sizes": {}, "blocks": tuple(blocks)}
    return Measurement.model_construct(None, **fields)


def read_series(folder: Path) -> list[Series]:
    """All recordings of a folder, by name. Raises SystemExit if there is none."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as kept:
            names = ("body", "num_burners", "slowdown", "evidence")
            rest = {name: kept[name].item() for name in names}
            found.append(Series(kept["latencies_ns"], kept["begun_ns"], **rest))
    if not found:
        raise SystemExit(f"{folder} has no recordings: run benchmarks/recorded_series.py first")
    return found


def _words(evidence: Evidence) -> str:
    """What the whole recording was like."""
    names = ("cpu_share", "foreign_share", "steal_share", "run_queue_wait_share")
    values = {name: getattr(evidence, name) for name in names}
    return ", ".join(f"{name} {value[0]:.3f}" if value else f"{name} unknown" for name, value in values.items())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--burners", type=int, default=0)
    parser.add_argument("--body", choices=BODIES, default="linear")
    parser.add_argument("--blocks", type=int, default=12_000)
    parser.add_argument("--seconds", type=float, default=220.0)
    parser.add_argument("--slowdown", type=float, default=0.0, help="of arm B, e.g. 0.03: as many more units of work")
    parser.add_argument("--block-s", type=float, help=f"seconds per block; otherwise {CALLS_PER_BLOCK} calls")
    return parser.parse_args()


def main() -> None:
    given = _arguments()
    make, extra = BODIES[given.body], round(NUM_UNITS * given.slowdown)
    same = make(NUM_UNITS)
    slower = make(NUM_UNITS + extra) if extra else same
    calls: dict[Arm, Call] = {"baseline": same, "candidate": slower, "control": same}
    call_s = warm_up(same, WARM_UP_S)
    warm_up(slower, WARM_UP_S if extra else 0.0)
    # a call that does no unit: what it costs is in both arms and makes the true slowdown smaller
    true_slowdown = given.slowdown and extra / NUM_UNITS * (1 - warm_up(make(0), 0.1) / call_s)
    calls_per_block = max(1, round(given.block_s / call_s)) if given.block_s else CALLS_PER_BLOCK
    watcher = Watcher()
    with burners(given.burners):
        watcher.before()
        latencies, begun = record(calls, given.blocks // BLOCKS_PER_ROUND, given.seconds, calls_per_block)
        watcher.after()
    series = Series(latencies, begun, given.body, given.burners, true_slowdown, _words(watcher.evidence()))
    given.folder.mkdir(parents=True, exist_ok=True)
    kind = f"slowdown-{extra}" if extra else "aa"
    path = given.folder / f"{kind}-{given.body}-{given.burners}-burners-{time.time_ns()}.npz"
    np.savez_compressed(path, **series._asdict())
    print(
        f"{path}: {len(begun)} blocks of {calls_per_block} calls of {call_s * 1e3:.3g} ms in "
        f"{series.round_s * series.num_rounds:.0f} s, {given.burners} burners; {series.evidence}"
        + (f"; true slowdown {100 * true_slowdown:.3f} %" if extra else "")
    )


if __name__ == "__main__":
    main()
