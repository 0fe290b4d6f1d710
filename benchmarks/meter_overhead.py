"""What do meters cost the run that they measure: marking a window, and the thread that watches the counter meanwhile?

    OMP_NUM_THREADS=1 python benchmarks/meter_overhead.py

Start and stop of every instrument that can be opened here (NVML's on a fake of real time, with their threads), 2,000 times:
median and 99th percentile. Then calls of 1 and 5 ms with the thread of `energy-nvml` and without, in turns of 0.1 s (A B B
A): the ratio of the medians of neighbours with Student's interval, and that of two turns without any thread as control.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from compressbench.core.errors import CompressbenchError
from compressbench.core.protocols import Instrument
from compressbench.core.statistics import log_ratio_interval
from compressbench.meters.edges import EdgeSampler
from compressbench.meters.energy_estimate import EstimatedEnergy
from compressbench.meters.energy_nvml import NvmlEnergy
from compressbench.meters.energy_nvml_power import NvmlPower
from compressbench.meters.energy_rapl import RaplEnergy
from compressbench.testing.nvml import FakeGpu, FakeNvml

NUM_MARKS = 2000
NUM_ROUNDS = 40
TURN_S = 0.1

Call = Callable[[], Any]


def main() -> None:
    print(f"{'meter':>24} {'start':>20} {'stop':>20}   microseconds: median (p99) of {NUM_MARKS}")
    for name, make in meters().items():
        try:
            instrument = make()
        except CompressbenchError as error:
            print(f"{name:>24} {error}")
            continue
        starts, stops = time_marks(instrument)
        instrument.close()
        print(f"{name:>24} {summary(starts):>20} {summary(stops):>20}")
    print(f"\n{'body':>12} {'tick':>6}   median with the thread / without, {NUM_ROUNDS} rounds of four turns")
    for name, body in bodies().items():
        for tick_s in (0.1, 0.02):
            print_effect(name, body, tick_s)


def meters() -> dict[str, Callable[[], Instrument]]:
    def nvml() -> FakeNvml:
        return FakeNvml(time.perf_counter_ns, FakeGpu(power=lambda second: 400 + 50 * (second % 0.3)))

    return {
        "energy-nvml": lambda: NvmlEnergy(0, nvml=nvml()),
        "energy-nvml-power": lambda: NvmlPower(0, nvml=nvml()),
        "energy-rapl": RaplEnergy,
        "energy (codecarbon)": EstimatedEnergy,
    }


def time_marks(instrument: Instrument) -> tuple[list[int], list[int]]:
    starts, stops, clock = list[int](), list[int](), time.perf_counter_ns
    for _ in range(NUM_MARKS):
        before = clock()
        instrument.start()
        between = clock()
        instrument.stop()
        starts.append(between - before)
        stops.append(clock() - between)
    instrument.collect()
    return starts, stops


def summary(nanoseconds: list[int]) -> str:
    ordered = sorted(nanoseconds)
    return f"{statistics.median(ordered) / 1e3:.2f} ({ordered[int(len(ordered) * 0.99)] / 1e3:.2f})"


def bodies() -> dict[str, Call]:
    """Each takes the stated time, more or less, on this machine."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    matrix, tensor = np.ones((160, 160), dtype=np.float32), torch.ones(160, 160)
    units: dict[str, Call] = {
        "Python": lambda: sum(number * number for number in range(500)),
        "NumPy": lambda: matrix @ matrix,
        "torch": lambda: tensor @ tensor,
    }
    return {f"{name} {ms} ms": lasting(unit, ms / 1e3) for name, unit in units.items() for ms in (1, 5)}


def lasting(unit: Call, seconds: float) -> Call:
    durations = []
    for _ in range(50):
        before = time.perf_counter()
        unit()
        durations.append(time.perf_counter() - before)
    count = max(1, round(seconds / statistics.median(durations)))

    def body() -> None:
        for _ in range(count):
            unit()

    return body


def print_effect(name: str, body: Call, tick_s: float) -> None:
    sampler = watching(tick_s)
    medians: dict[bool, list[float]] = {True: [], False: []}
    for has_thread in turns():
        if has_thread and not sampler.is_running:
            sampler.start()
        elif not has_thread:
            sampler.close()
        medians[has_thread].append(turn(body))
    without = medians[False]
    ratio = log_ratio_interval(without, medians[True])
    control = log_ratio_interval([a for a, _ in pairs(without)], [b for _, b in pairs(without)])
    print(f"{name:>12} {tick_s * 1e3:4.0f}ms   {ratio.value:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]", end="")
    print(f"   control {control.value:.4f} [{control.low:.4f}, {control.high:.4f}]")


def watching(tick_s: float) -> EdgeSampler:
    """What `energy-nvml` runs in its thread."""
    nvml = FakeNvml(time.perf_counter_ns, FakeGpu(tick_s=tick_s))
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    sampler = EdgeSampler(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3, name="the fake counter")
    sampler.probe()
    return sampler


def turns() -> Iterator[bool]:
    for _ in range(NUM_ROUNDS):
        yield from (False, True, True, False)


def pairs(values: list[float]) -> list[tuple[float, float]]:
    """Neighbours in time, each value once."""
    return list(pairwise(values))[::2]


def turn(body: Call) -> float:
    """The median of the calls of one turn, in nanoseconds."""
    clock, durations = time.perf_counter_ns, list[int]()
    body()
    until = clock() + round(TURN_S * 1e9)
    while (before := clock()) < until:
        body()
        durations.append(clock() - before)
    return statistics.median(durations)


if __name__ == "__main__":
    main()
