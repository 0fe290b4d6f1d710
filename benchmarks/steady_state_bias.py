"""How far from the steady state are calls that a warm-up lets through, and how often does it call a steady series unsteady?

    python benchmarks/steady_state_bias.py

First table: 400 calls of which the first are slow, as in MEASURING 1.3 (excess = amplitude x exp(-call / tau), lognormal
noise of 5 %): the bias of the mean of what is kept by leaving out ten calls, by MSER-5, by MSER-5 with the drift veto, and
by the veto and a sharp look, without which a warm-up goes on.
Second: `warm_up` itself with its default rule on calls of 5 ms: the share of steady series that it calls not reached, and
of series that drift all the time (per cent per second) the share that it does not let through. Third: after how many calls
it ends for warm-ups of several lengths, and the bias of the 400 calls that follow.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from compressbench.measure.drift import CALLS_PER_BLOCK, DriftRule, judge, medians_of, mser_truncation
from compressbench.measure.steady_state import WarmUpRule, warm_up
from compressbench.testing import FakeClock

NUM_CALLS = 400
CALL_S = 0.005
DRAW = np.random.default_rng(3)
Noise = Callable[[int], np.ndarray]


def lognormal(sd: float) -> Noise:
    return lambda count: np.exp(sd * DRAW.standard_normal(count))


def lognormal_ar1(sd: float, phi: float) -> Noise:
    def draw(count: int) -> np.ndarray:
        noise = (DRAW.standard_normal(count) * math.sqrt(1 - phi * phi)).tolist()
        noise[0] /= math.sqrt(1 - phi * phi)
        for index in range(1, count):
            noise[index] += phi * noise[index - 1]
        return np.exp(sd * np.array(noise))

    return draw


def pareto(scale: float) -> Noise:
    return lambda count: 1 + scale * DRAW.pareto(1.5, count)


def bursts(count: int) -> np.ndarray:
    """10 % of calls take half as long again, in stretches of 20 calls on average."""
    is_slow, factors = bool(DRAW.random() < 0.1), []
    for chance in DRAW.random(count).tolist():
        is_slow = chance >= 1 / 20 if is_slow else chance < 1 / 180
        factors.append(1.5 if is_slow else 1.0)
    return np.array(factors) * np.exp(0.05 * DRAW.standard_normal(count))


NOISES: dict[str, Noise] = {
    "lognormal 0.1 %": lognormal(0.001),
    "lognormal 5 %": lognormal(0.05),
    "lognormal 20 %": lognormal(0.2),
    "lognormal 50 %": lognormal(0.5),
    "AR(1) 0.5, 5 %": lognormal_ar1(0.05, 0.5),
    "AR(1) 0.5, 20 %": lognormal_ar1(0.2, 0.5),
    "AR(1) 0.9, 10 %": lognormal_ar1(0.1, 0.9),
    "Pareto 1.5, 5 %": pareto(0.05),
    "Pareto 1.5, 30 %": pareto(0.3),
    "bursts of 20 calls": bursts,
}


def warming(amplitude: float, tau: float, count: int) -> np.ndarray:
    return 1 + amplitude * np.exp(-np.arange(count) / tau)


def biases(amplitude: float, tau: float, num_series: int = 500) -> str:
    """Mean bias by each way; what the veto or a blunt look refuses is not in its mean."""
    by_way: dict[str, list[float]] = {"fixed-10": [], "MSER-5": [], "with veto": [], "and sharp": []}
    for _ in range(num_series):
        series = (warming(amplitude, tau, NUM_CALLS) * lognormal(0.05)(NUM_CALLS)).tolist()
        truth = math.exp(0.05**2 / 2)
        start = CALLS_PER_BLOCK * mser_truncation(medians_of(series, CALLS_PER_BLOCK))
        state = judge(series, 1, DriftRule())
        kept = statistics.fmean(series[-state.num_kept :]) / truth - 1
        by_way["fixed-10"].append(statistics.fmean(series[10:]) / truth - 1)
        by_way["MSER-5"].append(statistics.fmean(series[start:]) / truth - 1)
        if not state.drift:
            by_way["with veto"].append(kept)
            if state.resolution <= DriftRule().resolution:
                by_way["and sharp"].append(kept)
    return "   ".join(
        f"{way} " + (f"{statistics.fmean(found):.2%}" if found else "-") + f" of {len(found) / num_series:.0%}"
        for way, found in by_way.items()
    )


def warmed(durations: Sequence[float]) -> tuple[int, bool]:
    """After how many calls the warm-up ended, and whether it called them steady."""
    clock = FakeClock()
    found, _ = warm_up(lambda index: clock.advance(durations[index]), clock, WarmUpRule())
    return found.num_calls, found.steady_state == "yes"


def share_not_reached(noise: Noise, per_cent_per_s: float, num_series: int) -> float:
    # the cap of 5 s of 5 ms calls, with room for noise that makes calls shorter
    count = 2000
    drift = 1 + per_cent_per_s / 100 * CALL_S * np.arange(count)
    return 1 - sum(warmed((CALL_S * drift * noise(count)).tolist())[1] for _ in range(num_series)) / num_series


def after_warm_up(amplitude: float, tau: float, noise: Noise, num_series: int = 150) -> str:
    calls, bias, num_steady = [], [], 0
    for _ in range(num_series):
        shape = warming(amplitude, tau, 2400)
        num_calls, is_steady = warmed((CALL_S * shape * noise(2400)).tolist())
        num_steady += is_steady
        if is_steady:
            calls.append(num_calls)
            bias.append(float(shape[num_calls : num_calls + NUM_CALLS].mean() - 1))
    if not bias:
        return f"{'-':>24} {0:5.0%}"
    worst = float(np.percentile(bias, 95))
    return f"{statistics.median(calls):6.0f} {statistics.fmean(bias):8.2%} {worst:8.2%} {num_steady / num_series:5.0%}"


def main() -> None:
    begun = time.perf_counter()
    for amplitude, tau in ((1.0, 30), (0.5, 100)):
        print(f"tau {tau}, amplitude {amplitude}: {biases(amplitude, tau)}", flush=True)
    rates = (0.0, 1.0, 3.0, 10.0, 30.0)
    print("\nnot reached, of 1,000 steady series and 100 that drift by % per s")
    print(f"{'':20}" + "".join(f"{f'{rate:g} %/s' if rate else 'steady':>10}" for rate in rates))
    for name, noise in NOISES.items():
        shares = [share_not_reached(noise, rate, 100 if rate else 1000) for rate in rates]
        print(f"{name:20}" + "".join(f"{share:10.1%}" for share in shares), flush=True)
    print(
        "\nwarm-up of (amplitude, tau in calls): calls until let through, mean bias, 95th percentile, share let through"
    )
    cases = ((1.0, 30), (0.5, 100), (0.3, 300))
    print(f"{'':20}" + "".join(f"{f'({amplitude}, {tau})':>33}" for amplitude, tau in cases))
    for name in ("lognormal 0.1 %", "lognormal 5 %", "lognormal 20 %", "AR(1) 0.5, 5 %", "bursts of 20 calls"):
        found = (after_warm_up(amplitude, tau, NOISES[name]) for amplitude, tau in cases)
        print(f"{name:20}" + "".join(f"{text:>33}" for text in found), flush=True)
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
