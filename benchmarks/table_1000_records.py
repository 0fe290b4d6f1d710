"""How long does `compressbench table` take from a cold start on 1000 records?

    python benchmarks/table_1000_records.py

A folder of 1000 records (100 runs of a baseline and nine candidates) with about 800 latencies per arm is written; then
`compressbench table FOLDER` is run as a child process (the first time it makes the folder's index, then it finds it), and
so is `import numpy`, the unit that makes machines comparable.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import record_builder as build  # noqa: E402

from compressbench.records.store import RecordStore  # noqa: E402

NUM_RUNS, NUM_CANDIDATES, NUM_REPEATS = 100, 9, 5


def write_records(folder: Path) -> int:
    """100 recipes, one run each: a baseline and nine candidates with 6 x 2 blocks of 67 calls per arm."""
    names = [f"candidate-{index}" for index in range(NUM_CANDIDATES)]
    store = RecordStore(folder)
    for run in range(NUM_RUNS):
        recipe = build.recipe(names, name=f"recipe-{run:03}")
        for index, name in enumerate(["baseline", *names]):
            speed = build.noisy(0.004 * (1 - index / 20), seed=index)
            record = build.record(
                name,
                recipe=recipe,
                scores=(build.accuracy_after(20 + index, 15) if index else build.accuracy(),),
                measurement=build.measurement(build.noisy(0.004, seed=99), speed, calls=67),
            )
            store.append(record)
    return NUM_RUNS * (NUM_CANDIDATES + 1)


def seconds(command: list[str], num_shown: int = 0) -> tuple[float, float]:
    """Median wall and CPU seconds of a child process over the repeats."""
    walls, cpus = [], []
    for _ in range(NUM_REPEATS):
        before, begun = os.times(), time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        walls.append(time.perf_counter() - begun)
        after = os.times()
        cpus.append(sum(after[2:4]) - sum(before[2:4]))
        # a record that could not be read would be a fast one
        assert not done.stderr, done.stderr[:500]
        assert done.stdout.count("candidate-8") >= num_shown, done.stdout[:500]
    return statistics.median(walls), statistics.median(cpus)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        count = write_records(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).glob("*.json"))
        numpy_wall, numpy_cpu = seconds([sys.executable, "-c", "import numpy"])
        print(f"import numpy: {numpy_wall:.2f} s wall, {numpy_cpu:.2f} s CPU")
        for form in ("terminal", "json"):
            wall, cpu = seconds(
                [sys.executable, "-m", "compressbench", "table", folder, "--limit", "0", "--format", form], NUM_RUNS
            )
            print(
                f"table of {count} records ({size / 1e6:.0f} MB), {form}: median {wall:.2f} s wall, {cpu:.2f} s CPU of "
                f"{NUM_REPEATS} runs; {wall / numpy_wall:.1f} times `import numpy`"
            )


if __name__ == "__main__":
    main()
