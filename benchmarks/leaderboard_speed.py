"""How long does `compressbench leaderboard` take, and how fast is the page of ten thousand rows in a real browser?

    python benchmarks/leaderboard_speed.py 10000
    python benchmarks/leaderboard_speed.py 100000 --no-browser

Made-up rows of one group, each with its values, intervals and verdicts, become a board and a site (without reading records,
which is the catalog's work). Chromium then opens it from the disk; the page itself measures, five times each: from the
start of loading to the first row, sorting by each column, and filtering, each until the next frame is drawn.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from compressbench.core.garbage import no_garbage_collection
from compressbench.report.catalog import Catalog
from compressbench.report.figures import Contender, Figure
from compressbench.report.leaderboard.board_build import board_of
from compressbench.report.leaderboard.site import write_site
from compressbench.report.rows import Cell, Row

METHODS = (
    "cast",
    "int8-dynamic",
    "gptq",
    "awq",
    "wanda",
    "magnitude",
    "depth-pruning",
    "depth-pruning + logit-distillation",
)
COSTS = {
    "latency_p50_s": (0.01, "s", "measured"),
    "energy_j_per_inference": (0.08, "J/inference", "estimated"),
    "peak_memory_bytes": (9e7, "B", "measured"),
    "disk_bytes": (9e7, "B", "measured"),
}


class MadeUp:
    """Stands for a catalog: contenders of one group, one whole row, and a small detail for each."""

    unreadable: Sequence[Any] = ()

    def __init__(self, num_rows: int) -> None:
        rng = random.Random(0)  # noqa: S311
        self._contenders = [contender(at, rng) for at in range(num_rows)]
        self._row = row()

    def contenders(self, names: Iterable[str] = (), *, recipe: str = "", key: str = "") -> list[Contender]:
        return self._contenders

    def row(self, at: int) -> Row:
        return self._row

    def details(self, places: Iterable[int]) -> Iterator[str]:
        detail = json.dumps({"recipe": {"name": "made-up"}, "latencies_s": [0.01] * 200})
        return (detail for _ in places)


def contender(at: int, rng: random.Random) -> Contender:
    is_baseline = at == 0
    accuracy = 0.93 - abs(rng.gauss(0, 0.03)) * (not is_baseline)
    figures = {
        "accuracy": figure(accuracy, 0.005, "measured", accuracy / 0.93, is_baseline, difference=accuracy - 0.93)
    }
    for name, (base, _, kind) in COSTS.items():
        ratio = 1.0 if is_baseline else rng.lognormvariate(-0.3, 0.4)
        figures[name] = figure(base * ratio, 0.03, kind, ratio, is_baseline)
    return Contender(
        at=at, recipe="made-up", candidate="baseline" if is_baseline else f"candidate-{at}",
        role="baseline" if is_baseline else "candidate", status="ok", run_id="20261127T010930.828612Z", model="m",
        steps="" if is_baseline else rng.choice(METHODS), comparability_key="0" * 16, baseline_id="1" * 16,
        metrics=("accuracy",), faults=(), unsteady=("contended: made up",) if rng.random() < 0.05 else (), figures=figures,
    )  # fmt: skip


def figure(
    value: float, spread: float, kind: str, ratio: float, is_baseline: bool, difference: float | None = None
) -> Figure:
    bounds = (value * (1 - spread), value * (1 + spread))
    if is_baseline:
        return Figure(value, *bounds, kind=kind, direction="lower" if difference is None else "higher")
    is_metric = difference is not None
    word = (
        ("degraded" if (difference or 0) < -0.02 else "equivalent") if is_metric else "lower" if ratio < 1 else "higher"
    )
    return Figure(
        value, *bounds, kind=kind, direction="higher" if is_metric else "lower", verdict=word, ratio=ratio,
        ratio_low=ratio * (1 - spread), ratio_high=ratio * (1 + spread), difference=difference,
        difference_low=None if difference is None else difference - 0.01,
        difference_high=None if difference is None else difference + 0.01,
    )  # fmt: skip


def row() -> Row:
    cells = {
        "accuracy": Cell(value=0.93, unit="fraction"),
        **{n: Cell(value=b, unit=u) for n, (b, u, _) in COSTS.items()},
    }
    return Row(
        recipe="made-up", candidate="baseline", role="baseline", status="ok", key="k", run_id="20261127T010930.828612Z",
        steps="", scenario="single-stream", metrics=("accuracy",), cells=cells, against_baseline={},
        comparability_key="0" * 16, conditions={"hardware": "Example CPU, x86_64 (avx2)", "threads": "2 on 2 cores"},
    )  # fmt: skip


MEASURE = """async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  const timed = async (act) => {
    const begun = performance.now();
    act();
    document.body.getBoundingClientRect();
    await frame();
    return performance.now() - begun;
  };
  const found = { sort: [], filter: [] };
  for (let turn = 0; turn < 5; turn += 1) {
    for (const button of document.querySelectorAll("#ranked .sort")) {
      found.sort.push(await timed(() => button.click()));
      await new Promise((done) => setTimeout(done, 300));
    }
    const box = document.querySelector("#filters input[type=search]");
    for (const words of ["candidate-7", "gptq", "", "wanda 99"]) {
      found.filter.push(await timed(() => { box.value = words; box.dispatchEvent(new Event("input")); }));
      await new Promise((done) => setTimeout(done, 1500));
    }
  }
  return found;
}"""
FIRST_ROW = """new MutationObserver((_, observer) => {
  if (document.querySelector("#ranked tbody tr")) { window.firstRow = performance.now(); observer.disconnect(); }
}).observe(document, { childList: true, subtree: true });"""


def in_browser(page_file: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        firsts = []
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            page.add_init_script(FIRST_ROW)
            page.goto(page_file.as_uri())
            page.wait_for_selector("#ranked tbody tr")
            firsts.append(page.evaluate("window.firstRow"))
        page.wait_for_timeout(3000)
        found = page.evaluate(MEASURE)
        browser.close()
    for name, times in (("first row", firsts), *found.items()):
        print(f"{name}: median {statistics.median(times):.0f} ms, slowest {max(times):.0f} ms of {len(times)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_rows", type=int)
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        catalog = cast(Catalog, MadeUp(asked.num_rows))
        with no_garbage_collection():
            begun = time.perf_counter()
            board = board_of(catalog, "Made-up rows")
            built = time.perf_counter()
            page = write_site(board, catalog, asked.out or Path(folder) / "site")
            done = time.perf_counter()
        num_megabytes = sum(path.stat().st_size for path in page.parent.rglob("*")) / 1e6
        print(f"{asked.num_rows} rows: {num_megabytes:.0f} MB, board {built - begun:.2f} s, site {done - built:.2f} s")
        if not asked.no_browser:
            in_browser(page.resolve())


if __name__ == "__main__":
    main()
