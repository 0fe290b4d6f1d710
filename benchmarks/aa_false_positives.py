"""How often does a comparison of a model with itself find a difference? In recorded series, alone and under load.

    for n in 0 1 2; do python benchmarks/recorded_series.py out/series --burners $n; done      # 2 to 4 minutes each
    python benchmarks/aa_false_positives.py out/series

Runs are cut out of the A/A series at random places, 1,000 per line; they overlap, so that the last column has the rate of
those that don't, with Wilson's interval. `plain`: Student's interval over rounds excludes 1 (nominal 5 %). `verdict`: the
shipped verdict is faster or slower. Both are the package's own functions. For comparison the same time spent one arm after
the other: the first half of the run's calls as A and the second as B, by Welch's t on calls, by Welch's t on the medians of
blocks, and by Mann and Whitney's U on calls, each at 5 %. Then the spurious effect of runs of 60 s, in percent.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from recorded_series import BLOCKS_PER_ROUND, Series, read_series, run_of
from scipy import stats

from compressbench.core.statistics import Interval, proportion_interval
from compressbench.records.measurement import Arm, Measurement
from compressbench.report.against import ratio_verdict
from compressbench.report.paired import control_noise, paired_ratio, quantities

NUM_DRAWS, EFFECT_S, NOMINAL = 1000, 60.0, 0.05
QUANTITY = "latency_p50_s"


class Shape(NamedTuple):
    """Rounds, and how many recorded blocks make a block."""

    name: str
    rounds: int
    block_s: float | None


SHAPES = (
    Shape("6 rounds of short blocks", 6, None),
    Shape("20 rounds of short blocks", 20, None),
    Shape("smoke: 6 rounds of 0.25 s", 6, 0.25),
    Shape("13 rounds of 0.75 s", 13, 0.75),
)


class Findings(NamedTuple):
    """What one run said, by name of the test."""

    is_found: Mapping[str, bool]
    effects: Sequence[float]


def verdict_of(run: Measurement) -> tuple[Interval, str]:
    """As report/against.py does it for a candidate whose baseline's own copy showed nothing."""
    value_of, words = quantities(run)[QUANTITY]
    ratio, noise = paired_ratio(run, value_of), control_noise(run, value_of)
    if ratio is None:
        raise SystemExit("a run without a ratio")
    return ratio, ratio_verdict(ratio, noise, words, True).verdict


def look_at(series: Series, first_block: int, shape: Shape, group: int) -> Findings:
    run = run_of(series, first_block, shape.rounds, group)
    ratio, verdict = verdict_of(run)
    count = shape.rounds * BLOCKS_PER_ROUND * group
    calls = series.latencies_ns[first_block : first_block + count].astype(float)
    halves = np.split(calls, 2)
    medians = [np.median(half.reshape(shape.rounds * BLOCKS_PER_ROUND // 2, -1), axis=1) for half in halves]
    found = {
        "plain": ratio.low > 1 or ratio.high < 1,
        "verdict": verdict in ("faster", "slower"),
        "welch": _differ(stats.ttest_ind(*(half.ravel() for half in halves), equal_var=False)),
        "welch, blocks": _differ(stats.ttest_ind(*medians, equal_var=False)),
        "mann-whitney": _differ(stats.mannwhitneyu(*(half.ravel() for half in halves))),
    }
    return Findings(found, _effects(run, ratio))


def _differ(result: Any) -> bool:
    return bool(result.pvalue < NOMINAL)


def _effects(run: Measurement, candidate: Interval) -> list[float]:
    """|ratio - 1| of candidate and control, which are both the baseline's body."""
    arm: Arm = "control"
    control = paired_ratio(run, quantities(run)[QUANTITY].value_of, arm)
    return [abs(ratio.value - 1) for ratio in (candidate, control) if ratio is not None]


def group_of(series: Series, shape: Shape) -> int:
    """Recorded blocks per block: by the time that they really took."""
    return 1 if shape.block_s is None else max(1, round(shape.block_s / (series.round_s / BLOCKS_PER_ROUND)))


def false_positives(many: Sequence[Series], shape: Shape, num_draws: int, draw: np.random.Generator) -> str:
    """A line of the table, or why there is none."""
    drawn, apart = list[Findings](), list[Findings]()
    for series in many:
        group = group_of(series, shape)
        length = shape.rounds * BLOCKS_PER_ROUND * group
        room = len(series.begun_ns) - length
        if room < 0:
            continue
        drawn += [
            look_at(series, int(draw.integers(0, room + 1)), shape, group) for _ in range(-(-num_draws // len(many)))
        ]
        apart += [look_at(series, first, shape, group) for first in range(0, room + 1, length)]
    if not apart:
        return f"  {shape.name:26} no recording is long enough"
    rates = "  ".join(f"{_rate(drawn, name):6.1%}" for name in ("plain", "verdict"))
    others = "  ".join(f"{_rate(drawn, name):6.1%}" for name in ("welch", "welch, blocks", "mann-whitney"))
    plain = proportion_interval(_rate(apart, "plain"), len(apart))
    shipped = proportion_interval(_rate(apart, "verdict"), len(apart))
    return (
        f"  {shape.name:26} {rates}  | {others}  | {len(apart):4}: plain {plain.value:.1%} "
        f"[{plain.low:.1%}, {plain.high:.1%}], verdict {shipped.value:.1%} [{shipped.low:.1%}, {shipped.high:.1%}]"
    )


def _rate(found: Iterable[Findings], name: str) -> float:
    return float(np.mean([each.is_found[name] for each in found]))


def effects(many: Sequence[Series], num_draws: int, draw: np.random.Generator) -> str:
    """95th percentile of |effect - 1| in runs of 60 s: of all draws, and the range over recordings."""
    lines = []
    for block_s in (None, 0.25, 0.75):
        per_series = [_effects_of(series, block_s, num_draws // len(many), draw) for series in many]
        per_series = [each for each in per_series if each]
        if not per_series:
            return f"  no recording lasts {EFFECT_S:g} s"
        percentiles = [100 * float(np.quantile(each, 0.95)) for each in per_series]
        everything = 100 * float(np.quantile(np.concatenate(per_series), 0.95))
        name = "short blocks" if block_s is None else f"blocks of {block_s} s"
        lines.append(
            f"  runs of {EFFECT_S:g} s, {name:17} p95 of |effect| {everything:.2f} % "
            f"({min(percentiles):.2f} to {max(percentiles):.2f} over {len(percentiles)} recordings)"
        )
    num_apart = sum(int(series.round_s * series.num_rounds / EFFECT_S) for series in many)
    return "\n".join([*lines, f"  of these runs {num_apart} don't overlap; candidate and control are taken of each"])


def _effects_of(series: Series, block_s: float | None, num_draws: int, draw: np.random.Generator) -> list[float]:
    group = group_of(series, Shape("", 0, block_s))
    rounds = max(2, round(EFFECT_S / (series.round_s * group)))
    room = len(series.begun_ns) - rounds * BLOCKS_PER_ROUND * group
    if room < 0:
        return []
    found = []
    for _ in range(num_draws):
        run = run_of(series, int(draw.integers(0, room + 1)), rounds, group)
        found += _effects(run, verdict_of(run)[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=NUM_DRAWS)
    given = parser.parse_args()
    all_series = [series for series in read_series(given.folder) if not series.slowdown]
    kinds = sorted({(series.num_burners, series.body) for series in all_series})
    for num_burners, body in kinds:
        many = [series for series in all_series if (series.num_burners, series.body) == (num_burners, body)]
        num_blocks, draw = sum(len(series.begun_ns) for series in many), np.random.default_rng(0)
        print(f"\n{num_burners} burners, body {body}: {num_blocks} blocks in {len(many)} recordings")
        for series in many:
            print(f"  {series.round_s * series.num_rounds:.0f} s, {series.evidence}")
        print("  interleaved                  plain verdict  |  welch  blocks   m-w    | runs that don't overlap")
        for shape in SHAPES:
            print(false_positives(many, shape, given.draws, draw), flush=True)
        print(effects(many, min(given.draws, 300), draw), flush=True)


if __name__ == "__main__":
    main()
