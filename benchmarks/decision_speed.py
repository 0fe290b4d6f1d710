"""How long do a table, a decision and a site take on many records, and how much memory?

    python benchmarks/decision_speed.py [1000 20000 100000]

So many records are written into a temporary folder: runs of a baseline and nine candidates, each run of a recipe of its
own, so that every row counts; 30 KB a record, with 1,200 latencies of each arm. They are copies of 30 made-up runs with
names, keys, run ids and checksums of their own. Then every line is a fresh process: its wall time, the time of all
processors, and the memory of the largest of its processes.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import record_builder as build  # noqa: E402

from compressbench.records.store import dump, stem_of  # noqa: E402

NUM_CANDIDATES, NUM_TEMPLATES, FILES_PER_FOLDER = 9, 30, 1000
NAMES = ["baseline", *(f"candidate-{index}" for index in range(NUM_CANDIDATES))]
RECIPE, RUN_ID = "recipe-XXXXXX", "20260101T000000.XXXXXXZ"
OPENED = (
    "import os; from pathlib import Path; from compressbench.report.catalog import open_catalog; "
    "from compressbench.report.index import Settings; "
    "catalog = open_catalog([Path({folder!r})], settings=Settings(processes=os.cpu_count())); "
)
GOALS = ("--max-latency-p95-s", "0.01", "--max-accuracy-drop", "0.02", "--max-energy-j", "0.01")
VERBS = (
    ("recommend",),
    ("recommend", *GOALS),
    *(("table", "--format", form) for form in ("terminal", "md", "csv", "json")),
    ("leaderboard", "--out"),
    ("pareto", "--format", "json"),  # last: on many rows that are nearly copies it takes minutes
)


def templates() -> list[list[bytes]]:
    """Runs as the bytes of their records, with blanks for the recipe's name and the run's id."""
    return [[_template(seed, at) for at in range(len(NAMES))] for seed in range(NUM_TEMPLATES)]


def _template(seed: int, at: int) -> bytes:
    base = 0.004 * (1 + seed / 10)
    harmful = 10 + (7 * seed + 13 * at) % 90
    record = build.record(
        NAMES[at],
        run_id=RUN_ID,
        recipe=build.recipe(NAMES[1:], name=RECIPE),
        key=f"key-of-{NAMES[at]}-of-{RECIPE}",
        scores=(build.accuracy_after(harmful, 15) if at else build.accuracy(),),
        measurement=build.measurement(
            build.noisy(base, seed=seed), build.noisy(base * (1 - at / 20), seed=100 + 10 * seed + at), calls=100
        ),
        readings=build.readings(disk_bytes=90e6 / (1 + at)),
    )
    return dump(record)


def write_run(folder: Path, run: int, template: list[bytes]) -> int:
    """How many bytes were written."""
    number, num_bytes = f"{run:06}", 0
    for name, made in zip(NAMES, template, strict=True):
        data = made.replace(b"XXXXXX", number.encode())
        blanked = data[:11] + b"0" * 64 + data[75:]
        data = data[:11] + hashlib.sha256(blanked).hexdigest().encode() + data[75:]
        stem = stem_of(RECIPE, name, RUN_ID).replace("XXXXXX", number)
        (folder / f"{stem}.json").write_bytes(data)
        num_bytes += len(data)
    return num_bytes


def write_records(folder: Path, count: int) -> int:
    made, num_bytes = templates(), 0
    for run in range(count // len(NAMES)):
        below = folder / f"{run * len(NAMES) // FILES_PER_FOLDER:03}"
        below.mkdir(exist_ok=True)
        num_bytes += write_run(below, run, made[run % len(made)])
    return num_bytes


def spent(arguments: list[str], out: Path) -> str:
    """Wall and processor seconds and the peak memory of the largest process; the output goes into a file."""
    begun = time.perf_counter()
    with out.open("wb") as stream:
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, *arguments],
            {**os.environ, "PYTHONPATH": str(ROOT)},
            file_actions=[(os.POSIX_SPAWN_DUP2, stream.fileno(), 1)],
        )
        _, status, usage = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 6), arguments
    wall, cpu = time.perf_counter() - begun, usage.ru_utime + usage.ru_stime
    return (
        f"{wall:7.2f} s, {cpu:6.2f} s of processors, {usage.ru_maxrss / 1024:5.0f} MiB, load {os.getloadavg()[0]:.1f}"
    )


def measure(count: int, parent: Path) -> None:
    folder, out = parent / f"{count}", parent / "out"
    folder.mkdir()
    num_bytes = write_records(folder, count)
    print(f"\n{count:,} records, {num_bytes / 1e9:.2f} GB", flush=True)
    opened = ["-c", OPENED.format(folder=str(folder))]
    print(f"{spent(opened, out)}  index built", flush=True)
    index = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    print(f"{'':20}  (the index: {index / 1e6:.0f} MB)")
    measure_verbs(folder, out)
    write_run(folder, 999_999, templates()[0])
    print(f"{spent(opened, out)}  opened with a new run of ten records", flush=True)


def measure_verbs(folder: Path, out: Path) -> None:
    """Each verb on a folder that has its index."""
    for verb, *flags in VERBS:
        asked = [*flags, str(out.with_name("site"))] if verb == "leaderboard" else flags
        said = spent(["-m", "compressbench", verb, str(folder), *asked], out)
        print(f"{said}  {' '.join([verb, *flags])}, {out.stat().st_size / 1e6:.1f} MB", flush=True)


def main() -> None:
    counts = [int(each) for each in sys.argv[1:]] or [1000, 100_000]
    with tempfile.TemporaryDirectory() as parent:
        for count in counts:
            measure(count, Path(parent))


if __name__ == "__main__":
    main()
