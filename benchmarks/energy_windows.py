"""How far off are joules of a window, read from a counter that ticks every 100 or 20 ms, and is the stated interval true?

    python benchmarks/energy_windows.py

A fake NVML that is true in time says what is right. Ours (`NvmlEnergy`) stands beside a plain difference of the counter at
the window's ends, which is what Zeus and codecarbon take (energy_peers.py runs those). Simulated time, but for the last
part: 20 windows with the real thread. Takes about a minute.
"""
# ruff: noqa: S311 - nothing here is secret

from __future__ import annotations

import math
import random
import time
from functools import partial
from typing import NamedTuple

from compressbench.core.protocols import Window
from compressbench.meters.energy_nvml import NvmlEnergy
from compressbench.testing.event_clock import EventClock
from compressbench.testing.nvml import FakeGpu, FakeNvml
from compressbench.testing.nvml_device import Power

LENGTHS_S = (0.035, 0.15, 0.5, 1.0, 2.0, 5.0)
NUM_WINDOWS = 60
NUM_CASES = 1000
CALL_S = 0.007


class Result(NamedTuple):
    truth_j: float
    found_j: float
    uncertainty_j: float = math.nan

    @property
    def error(self) -> float:
        return self.found_j / self.truth_j - 1

    @property
    def is_held(self) -> bool:
        return abs(self.found_j - self.truth_j) <= 1.96 * self.uncertainty_j


def calls(second: float) -> float:
    """5 ms of 480 W and 2 ms of 200 W."""
    return 480.0 if second % CALL_S < 0.005 else 200.0


def drift(second: float) -> float:
    """Up to 0.6 % per second: 400 W, 5 % up and down within 50 s."""
    return 400 * (1 + 0.05 * math.sin(2 * math.pi * second / 50))


def wave(second: float) -> float:
    """400 W, 5 % up and down every 5 s: up to 6 % per second."""
    return 400 * (1 + 0.05 * math.sin(2 * math.pi * second / 5))


def levels() -> Power:
    """300 to 500 W, another level every 0.2 s on average."""
    randomly, steps = random.Random(1), [(0.0, 400.0)]
    while steps[-1][0] < 1000:
        steps.append((steps[-1][0] + randomly.expovariate(5) + 1e-3, randomly.uniform(300, 500)))
    return steps


def main() -> None:
    print_errors()
    print_coverage()
    print_real_time()


def print_errors() -> None:
    print(f"largest |error| of {NUM_WINDOWS} windows, each up to a tick longer than stated (standard deviation), %;")
    print("a window without a value was refused as below resolution")
    print(f"{'tick':>6} {'power':>9} {'window':>8} {'values':>7} {'ours':>16} {'held':>6} {'difference':>18}")
    powers: dict[str, Power] = {"400 W": 400.0, "calls": calls, "drift": drift, "wave": wave, "levels": levels()}
    for tick_s in (0.1, 0.02):
        for name, power in powers.items():
            for length_s in LENGTHS_S if name == "400 W" else LENGTHS_S[2:]:
                print_row(tick_s, name, power, length_s)


def print_row(tick_s: float, name: str, power: Power, length_s: float) -> None:
    ours = ours_on(tick_s, power, length_s)
    held = f"{sum(one.is_held for one in ours) / len(ours):.0%}" if ours else "-"
    print(f"{tick_s * 1e3:4.0f}ms {name:>9} {length_s:7.3f}s {len(ours):>7} {spread(ours):>16} {held:>6}", end=" ")
    print(f"{spread(difference_on(tick_s, power, length_s)):>18}")


def spread(found: list[Result]) -> str:
    if not found:
        return "-"
    errors = [one.error for one in found]
    mean = sum(errors) / len(errors)
    sd = math.sqrt(sum((error - mean) ** 2 for error in errors) / max(1, len(errors) - 1))
    return f"{max(map(abs, errors)) * 100:.3f} ({sd * 100:.3f})"


def ours_on(tick_s: float, power: Power, length_s: float) -> list[Result]:
    clock, randomly = EventClock(), random.Random(2)
    nvml = FakeNvml(clock, FakeGpu(power=power, tick_s=tick_s))
    meter, truths = NvmlEnergy(0, nvml=nvml, timing=clock.timing), []
    for _ in range(NUM_WINDOWS):
        clock.advance(rounded(randomly.uniform(0.2, 0.5), power, nvml.now_s))
        meter.start()
        begin_ns = clock()
        clock.advance(rounded(length_s + randomly.uniform(0, tick_s), power))
        meter.stop()
        truths.append(nvml.joules_between(begin_ns, clock()))
    windows = meter.collect()
    meter.close()
    return [result(window, truth) for window, truth in zip(windows, truths, strict=True) if window.values]


def result(window: Window, truth_j: float) -> Result:
    return Result(truth_j, window.values["energy_j"], window.uncertainties["energy_j"])


def rounded(seconds: float, power: Power, now_s: float = 0.0) -> float:
    """So that a moment so many seconds from now lies between two calls, where there are calls: a block has whole ones."""
    return math.ceil((now_s + seconds) / CALL_S) * CALL_S - now_s if power is calls else seconds


def difference_on(tick_s: float, power: Power, length_s: float) -> list[Result]:
    clock, randomly = EventClock(), random.Random(2)
    nvml, found = FakeNvml(clock, FakeGpu(power=power, tick_s=tick_s)), list[Result]()
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    for _ in range(NUM_WINDOWS):
        clock.advance(rounded(randomly.uniform(0.2, 0.5), power, nvml.now_s))
        begin_ns, begin_mj = clock(), nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        clock.advance(rounded(length_s + randomly.uniform(0, tick_s), power))
        found_j = (nvml.nvmlDeviceGetTotalEnergyConsumption(handle) - begin_mj) * 1e-3
        found.append(Result(nvml.joules_between(begin_ns, clock()), found_j))
    return found


def print_coverage() -> None:
    """Ticks of 10 to 100 ms with jitter and lag, windows of 0.3 to 10 s, a late thread, six kinds of power."""
    by_kind: dict[str, list[Result]] = {}
    num_void = 0
    for seed in range(NUM_CASES):
        kind, window, truth_j = random_case(seed)
        if window.values:
            by_kind.setdefault(kind, []).append(result(window, truth_j))
        num_void += bool(window.reason)
    every = [one for found in by_kind.values() for one in found]
    print(f"\nthe truth within +-1.96 u, {NUM_CASES} random cases ({num_void} of them refused with a reason)")
    for kind, found in [*sorted(by_kind.items()), ("all", every)]:
        middle = sorted(one.uncertainty_j / one.truth_j for one in found)[len(found) // 2]
        rms = math.sqrt(sum(one.error**2 for one in found) / len(found))
        print(f"{kind:>10} {sum(one.is_held for one in found)} of {len(found)} = ", end="")
        print(f"{sum(one.is_held for one in found) / len(found):.1%}, median u {middle:.3%}, rms error {rms:.3%}")


def random_case(seed: int) -> tuple[str, Window, float]:
    randomly = random.Random(seed)
    tick_s, length_s = log_uniform(randomly, 0.01, 0.1), log_uniform(randomly, 0.3, 10.0)
    kind = randomly.choice(["constant", "levels", "wandering", "noise", "wave", "calls"])
    gpu = FakeGpu(
        power=random_power(kind, randomly, 40 * tick_s + length_s + 2),
        tick_s=tick_s,
        jitter=randomly.uniform(0.0, 0.4),
        lag_s=tick_s * randomly.choice([0.0, 0.0, 0.1, 0.3]),
        phase_s=randomly.uniform(0.0, tick_s),
        seed=seed,
    )
    clock = EventClock()
    nvml = FakeNvml(clock, gpu)
    late_s = partial(randomly.expovariate, 1 / randomly.choice([1e-4, 5e-4, 2e-3]))
    timing = clock.timing._replace(background=lambda step: clock.attach(lambda: step() + late_s()))
    meter = NvmlEnergy(0, nvml=nvml, timing=timing)
    clock.advance(randomly.uniform(0.2, 0.5))
    meter.start()
    begin_ns = clock()
    clock.advance(length_s)
    meter.stop()
    (window,) = meter.collect()
    return kind, window, nvml.joules_between(begin_ns, begin_ns + round(length_s * 1e9))


def log_uniform(randomly: random.Random, low: float, high: float) -> float:
    return math.exp(randomly.uniform(math.log(low), math.log(high)))


def random_power(kind: str, randomly: random.Random, until_s: float) -> Power:
    level = randomly.uniform(100, 600)
    if kind == "constant":
        return level
    if kind == "wave":
        height, hertz = level * randomly.uniform(0.02, 0.3), log_uniform(randomly, 0.1, 5.0)
        return lambda second: level + height * math.sin(2 * math.pi * hertz * second)
    hold_s = {"levels": log_uniform(randomly, 0.05, 5.0), "calls": log_uniform(randomly, 0.003, 0.1)}.get(kind, 0.01)
    step_w, busy = log_uniform(randomly, 0.5, 20.0), 1 + randomly.uniform(0.1, 0.6)
    steps = [(0.0, level)]
    while steps[-1][0] < until_s:
        watts = {
            "levels": lambda: randomly.uniform(100, 700),
            "wandering": lambda: min(700.0, max(50.0, steps[-1][1] + randomly.gauss(0, step_w))),
            "noise": lambda: max(20.0, randomly.gauss(level, 5 * step_w)),
            "calls": lambda: level * (busy if len(steps) % 2 else 2 - busy),
        }[kind]()
        pause = hold_s * (randomly.expovariate(1) if kind == "levels" else 1)
        steps.append((steps[-1][0] + pause + 1e-4, watts))
    return steps


def print_real_time() -> None:
    print("\n20 windows of 0.5 s in real time with the thread, 400 W, beside a loop in Python, NumPy and sleep")
    for tick_s in (0.1, 0.02):
        nvml = FakeNvml(time.perf_counter_ns, FakeGpu(power=400.0, tick_s=tick_s))
        meter, truths = NvmlEnergy(0, nvml=nvml), []
        for number in range(20):
            time.sleep(0.037)
            meter.start()
            begin_ns = time.perf_counter_ns()
            work_for(0.5, number)
            meter.stop()
            truths.append(nvml.joules_between(begin_ns, time.perf_counter_ns()))
        found = [result(*pair) for pair in zip(meter.collect(), truths, strict=True) if pair[0].values]
        meter.close()
        held = sum(one.is_held for one in found)
        print(
            f"{tick_s * 1e3:4.0f}ms ours {spread(found)} %, {held} of {len(found)} held, {20 - len(found)} refused, ",
            end="",
        )
        print(f"median u {sorted(one.uncertainty_j / one.truth_j for one in found)[len(found) // 2]:.3%}")


def work_for(seconds: float, number: int) -> None:
    import numpy as np

    matrix, until_ns = np.ones((200, 200)), time.perf_counter_ns() + round(seconds * 1e9)
    while time.perf_counter_ns() < until_ns:
        if number % 3 == 0:
            sum(range(2000))
        elif number % 3 == 1:
            matrix @ matrix
        else:
            time.sleep(0.001)


if __name__ == "__main__":
    main()
