"""How often the intervals of break-evens hold the truth, simulated: `python benchmarks/breakeven_coverage.py [CASES]`.

A baseline's value, a paired ratio and a one-off cost are drawn around known truths, with the intervals that their errors
give; the answer is right if the true number of requests lies in the interval, or is no less than `at least`, or if it is
`never` where nothing is saved. The second table is of normal estimates of cost and saving, beside the delta method.
"""

from __future__ import annotations

import math
import sys

import numpy as np

from compressbench.core.statistics import Interval
from compressbench.lifecycle.breakeven import BreakEven, break_even
from compressbench.lifecycle.savings import difference

_Z95 = 1.959963984540054


def held(found: BreakEven, truth: float) -> bool:
    """`truth` is infinite where nothing is saved."""
    if found.requests is not None:
        return found.requests.low <= truth <= found.requests.high
    return math.isinf(truth) if found.outcome == "never" else found.at_least is not None and found.at_least <= truth


def lognormal(rng: np.random.Generator, middle: float, error: float) -> Interval:
    value = middle * math.exp(error * rng.normal())
    return Interval(value, value * math.exp(-_Z95 * error), value * math.exp(_Z95 * error))


def normal(rng: np.random.Generator, middle: float, error: float) -> Interval:
    value = float(rng.normal(middle, error))
    return Interval(value, value - _Z95 * error, value + _Z95 * error)


def of_ratios(rng: np.random.Generator, cases: int) -> None:
    print(
        "baseline's error, cost's error, ratio, its error: saving held, break-even held, reached, undetermined, never"
    )
    for base_error in (0.0, 0.05, 0.15):
        for cost_error in (0.0, 0.1):
            for ratio, error in ((0.4, 0.02), (0.6, 0.05), (0.9, 0.03), (0.97, 0.02), (1.0, 0.02), (1.1, 0.03)):
                saved, hits, outcomes = 0, 0, {"reached": 0, "undetermined": 0, "never": 0}
                each = 10 * (1 - ratio)
                truth = 50 / each if each > 0 else math.inf
                for _ in range(cases):
                    saving = difference(lognormal(rng, 10, base_error), lognormal(rng, ratio, error))
                    found = break_even(lognormal(rng, 50, cost_error), saving)
                    saved += saving.low <= each <= saving.high
                    hits += held(found, truth)
                    outcomes[found.outcome] += 1
                shares = ", ".join(f"{100 * count / cases:.1f}" for count in (saved, hits, *outcomes.values()))
                print(f"{base_error:4g} {cost_error:4g} {ratio:5g} {error:5g}: {shares} %")


def of_normals(rng: np.random.Generator, cases: int) -> None:
    print("cost's error, saving's error: held, by the delta method")
    for cost_error in (0.0, 0.05, 0.1, 0.2):
        for error in (0.03, 0.1, 0.2, 0.3, 0.5):
            hits = delta = 0
            for _ in range(cases):
                cost, saving = normal(rng, 100, 100 * cost_error), normal(rng, 1, error)
                cost = cost._replace(low=max(0.0, cost.low))
                hits += held(break_even(cost, saving), 100.0)
                value = cost.value / saving.value
                half = _Z95 * abs(value) * math.hypot(100 * cost_error / cost.value, error / saving.value)
                delta += abs(value - 100) <= half
            print(f"{cost_error:4g} {error:4g}: {100 * hits / cases:.1f}, {100 * delta / cases:.1f} %")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    generator = np.random.default_rng(0)
    of_ratios(generator, count)
    of_normals(generator, count)
