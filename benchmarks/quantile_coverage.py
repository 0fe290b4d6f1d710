"""Do the intervals and bounds of quantiles and means hold what they promise, on streams whose truth is known?

    python benchmarks/quantile_coverage.py

Draws 1,000 streams of each kind and length and asks `compressbench.core` about them. Of quantiles: in how many streams
one is given at all (the others are refused for too few independent values), in how many of those the two-sided 95 %
interval covers, and in how many of all the one-sided 99 % bound covers or is refused. Of the mean: in how many its
interval covers, next to Student's, which takes calls for independent. One standard error of 95 % of 1,000 is 0.7 points,
that of 99 % is 0.3. A share of fewer than 100 cases is not printed.

The last streams show what cannot be held: 3 % of calls are slow, in rare stretches of 20. A run of 1,000 calls sees one or
two of them or none, and what it has not seen no statistic can tell it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from compressbench.core import autocorrelation, statistics
from compressbench.core.quantiles import QuantileEstimate, summarize_quantiles

NUM_STREAMS = 1000
COUNTS = (30, 100, 400, 1000, 2000, 6000)
PROBABILITIES = (0.5, 0.95, 0.99)
MEAN_COUNTS = (12, 40, 100, 200, 400, 2000)
NORMAL = NormalDist()
DRAW = np.random.default_rng(20)


class Stream(NamedTuple):
    name: str
    draw: Callable[[int], np.ndarray]
    quantile: Callable[[float], float]


def gaussian_ar1(phi: float, count: int) -> np.ndarray:
    """Standard normal values, each correlated by `phi` with the one before."""
    noise = DRAW.standard_normal(count) * math.sqrt(1 - phi * phi)
    noise[0] /= math.sqrt(1 - phi * phi)
    values = noise.tolist()
    for index in range(1, count):
        values[index] += phi * values[index - 1]
    return np.array(values)


def lognormal_ar1(phi: float) -> Stream:
    return Stream(
        f"lognormal AR(1) {phi}" if phi else "lognormal",
        lambda count: np.exp(0.3 * gaussian_ar1(phi, count)),
        lambda probability: math.exp(0.3 * NORMAL.inv_cdf(probability)),
    )


def is_slow(stay: int, count: int) -> np.ndarray:
    """3 % of calls, in stretches of `stay` calls on average."""
    leave, enter = 1 / stay, 0.03 / 0.97 / stay
    state, states = bool(DRAW.random() < 0.03), []
    for chance in DRAW.random(count).tolist():
        state = chance >= leave if state else chance < enter
        states.append(state)
    return np.array(states)


def bimodal(stay: int) -> Stream:
    fast, slow = NormalDist(1, 0.05), NormalDist(2, 0.1)

    def draw(count: int) -> np.ndarray:
        is_second = DRAW.random(count) < 0.03 if stay == 1 else is_slow(stay, count)
        noise = DRAW.standard_normal(count)
        return np.where(is_second, 2 + 0.1 * noise, 1 + 0.05 * noise)

    def quantile(probability: float) -> float:
        low, high = 0.5, 3.0
        for _ in range(60):
            middle = (low + high) / 2
            is_below = 0.97 * fast.cdf(middle) + 0.03 * slow.cdf(middle) < probability
            low, high = (middle, high) if is_below else (low, middle)
        return low

    return Stream("bimodal" if stay == 1 else f"bimodal, slow for {stay} calls", draw, quantile)


def pareto() -> Stream:
    return Stream(
        "Pareto 1.5", lambda count: 1 + DRAW.pareto(1.5, count), lambda probability: (1 - probability) ** (-1 / 1.5)
    )


def heavy_clusters(phi: float) -> Stream:
    """X = max(phi X', (1 - phi) Z) with Frechet Z (ARMAX): heavy tails whose extremes come in clusters of 1 / (1 - phi)."""

    def draw(count: int) -> np.ndarray:
        values = (-1 / np.log(DRAW.random(count))).tolist()
        for index in range(1, count):
            values[index] = max(phi * values[index - 1], (1 - phi) * values[index])
        return np.array(values)

    return Stream(f"clustered Pareto tail {phi}", draw, lambda probability: -1 / math.log(probability))


STREAMS = [
    lognormal_ar1(0.0),
    bimodal(1),
    bimodal(3),
    lognormal_ar1(0.3),
    lognormal_ar1(0.5),
    lognormal_ar1(0.8),
    lognormal_ar1(0.9),
    pareto(),
    heavy_clusters(0.5),
    heavy_clusters(0.8),
    bimodal(20),
]


class Tally:
    """Of one quantile of one kind of stream."""

    def __init__(self) -> None:
        self.num = self.num_given = self.num_covered = self.num_bounds = self.num_bounds_short = 0

    def add(self, found: QuantileEstimate, truth: float) -> None:
        self.num += 1
        if found.low is not None and found.high is not None:
            self.num_given += 1
            self.num_covered += found.low <= truth <= found.high
        if found.upper_bound is not None:
            self.num_bounds += 1
            self.num_bounds_short += found.upper_bound < truth

    def __str__(self) -> str:
        covered = f"{self.num_covered / self.num_given:6.1%}" if self.num_given >= 100 else "     -"
        kept = 1 - self.num_bounds_short / self.num
        alone = f"{1 - self.num_bounds_short / self.num_bounds:6.1%}" if self.num_bounds >= 100 else "     -"
        return f"{self.num_given / self.num:5.0%} {covered} {kept:6.1%} {alone}"


def quantiles_of(stream: Stream, count: int) -> list[Tally]:
    truths = [stream.quantile(probability) for probability in PROBABILITIES]
    tallies = [Tally() for _ in PROBABILITIES]
    for _ in range(NUM_STREAMS):
        found = summarize_quantiles(stream.draw(count).tolist(), PROBABILITIES)
        for tally, estimate, truth in zip(tallies, found, truths, strict=True):
            tally.add(estimate, truth)
    return tallies


def means_of(phi: float, count: int) -> str:
    ours = theirs = 0
    for _ in range(NUM_STREAMS):
        values = gaussian_ar1(phi, count).tolist()
        found, plain = autocorrelation.series_mean_interval(values), statistics.mean_interval(values)
        ours += found.low <= 0 <= found.high
        theirs += plain.low <= 0 <= plain.high
    return f"{ours / NUM_STREAMS:6.1%} ({theirs / NUM_STREAMS:4.0%})"


def main() -> None:
    begun = time.perf_counter()
    print("quantiles: given / interval covers where given / 99 % bound covers or is refused / covers where given")
    print(f"{'':28}{'':6}" + "".join(f"{f'p{100 * each:g}':^30}" for each in PROBABILITIES))
    for stream in STREAMS:
        for count in COUNTS:
            print(f"{stream.name:28}{count:5} " + "   ".join(map(str, quantiles_of(stream, count))), flush=True)
    print("\nmean of AR(1): interval covers (Student's, as if independent)")
    print(f"{'':8}" + "".join(f"{f'n = {count}':>16}" for count in MEAN_COUNTS))
    for phi in (0.0, 0.3, 0.5, 0.8, 0.9):
        print(f"{phi:<8}" + "".join(f"{means_of(phi, count):>16}" for count in MEAN_COUNTS), flush=True)
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
