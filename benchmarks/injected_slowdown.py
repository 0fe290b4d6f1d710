"""How often is a model that is 3 % slower found to be slower, and never faster?

    for n in 1 2 3; do python benchmarks/recorded_series.py out/slow --slowdown 0.03 --block-s 0.25 --seconds 220; done
    python benchmarks/injected_slowdown.py out/slow
    python benchmarks/injected_slowdown.py out/slow --quick      # 9 and 30 s only: one recording of 40 s will do

The true slowdown is known without a clock: a call of the baseline is 100 units of the same work, one of the candidate 103;
what a call costs without any unit (below 0.1 %) is taken off. Runs of so many seconds are cut out of the recordings from
every round on; they overlap, so that the table says how many don't. `found` is the shipped verdict, `plain` Student's
interval without the 1 % threshold and without the control; `covered` how often the 95 % interval holds the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from aa_false_positives import verdict_of
from recorded_series import BLOCKS_PER_ROUND, Series, read_series, run_of

from compressbench.core.statistics import proportion_interval

LENGTHS_S = (9.0, 30.0, 60.0, 120.0)
QUICK_S = (9.0, 30.0)


class Run(NamedTuple):
    ratio: float
    low: float
    high: float
    verdict: str
    truth: float
    is_apart: bool


def runs(series: Series, seconds: float) -> Iterator[Run]:
    """From every round of a recording on; those that share nothing with the one before are marked."""
    rounds = max(2, round(seconds / series.round_s))
    for first in range(series.num_rounds - rounds + 1):
        ratio, verdict = verdict_of(run_of(series, first * BLOCKS_PER_ROUND, rounds))
        yield Run(*ratio, verdict, 1 + series.slowdown, first % rounds == 0)


def line(many: Sequence[Series], seconds: float) -> str:
    found = [run for series in many for run in runs(series, seconds)]
    if not found:
        return f"  {seconds:4.0f} s  no recording is long enough"
    apart = [run for run in found if run.is_apart]
    slower = sum(run.verdict == "slower" for run in found) / len(found)
    shipped = proportion_interval(sum(run.verdict == "slower" for run in apart) / len(apart), len(apart))
    plain = sum(run.low > 1 for run in found) / len(found)
    covered = sum(run.low <= run.truth <= run.high for run in found) / len(found)
    wrong = sum(run.verdict == "faster" for run in found)
    low, middle, high = np.quantile([run.ratio for run in found], (0.025, 0.5, 0.975))
    of_apart = f"{len(apart):4}: {shipped.value:.1%} [{shipped.low:.1%}, {shipped.high:.1%}]"
    return (
        f"  {seconds:4.0f} s {len(found):6} {slower:8.1%} {plain:8.1%} {covered:8.1%} {wrong:7}   "
        f"{middle:.4f} [{low:.4f}, {high:.4f}]   {of_apart}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    slowed = [series for series in read_series(given.folder) if series.slowdown]
    if not slowed:
        raise SystemExit(f"{given.folder} has no recording with a slowdown")
    for num_burners in sorted({series.num_burners for series in slowed}):
        many = [series for series in slowed if series.num_burners == num_burners]
        truth = ", ".join(f"{100 * series.slowdown:.3f} %" for series in many)
        print(f"\n{num_burners} burners, true slowdown {truth}")
        for series in many:
            block_s = series.round_s / BLOCKS_PER_ROUND
            print(f"  {series.round_s * series.num_rounds:.0f} s, blocks of {block_s:.2f} s; {series.evidence}")
        print("  run      runs    found    plain  covered  faster   ratio: median [95 % of runs]   apart: found")
        for seconds in QUICK_S if given.quick else LENGTHS_S:
            print(line(many, seconds), flush=True)


if __name__ == "__main__":
    main()
