"""What NVML's energy counter does on this GPU: its tick, idle power, A/A, additivity, and the integrated power beside it.

    python benchmarks/cuda_energy.py [FILE.json]

Seven parts, about 90 s: the counter while idle and under load; power of an idle device before and after PyTorch has a
context on it, and after work; power of copies, of matrix products and of tiny kernels, by the counter and by the
integrated power; by how much a plain difference of the counter is off in short windows; blocks of the same work in
ABBA order; and whether k times as many products take k times as much energy. Everything is read through the meters
that recipes use. Without a GPU it runs on a fake NVML in real time, which shows that the script works and says
nothing of any device.
"""
# ruff: noqa: S311 - nothing here is secret

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from compressbench.core.protocols import Window
from compressbench.core.statistics import mean_interval
from compressbench.meters.energy_nvml import NvmlEnergy
from compressbench.meters.energy_nvml_power import NvmlPower
from compressbench.testing.nvml import FakeGpu, FakeNvml

IDLE_S, LOAD_S, BLOCK_S, SERIES_S = 4.0, 4.0, 1.0, 8.0
NUM_PAIRS, NUM_REPEATS, TIMES = 12, 3, (1, 2, 4)
WINDOWS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
NUM_WINDOWS = 500
SEED = 0

Work = Callable[[int], None]


class Reading(NamedTuple):
    """Of one window: what the counter says, and the integrated power."""

    seconds: float
    counter: Window
    power: Window

    def as_data(self) -> dict[str, Any]:
        found: dict[str, Any] = {"seconds": self.seconds}
        for name, window in (("counter", self.counter), ("power", self.power)):
            joules = window.values.get("energy_j")
            found[name] = {"reason": window.reason} if joules is None else {
                "joules": joules,
                "uncertainty_j": window.uncertainties["energy_j"],
                "watts": joules / window.seconds,
            }  # fmt: skip
        return found

    @property
    def joules(self) -> float:
        return self.counter.values.get("energy_j", math.nan)


class Bench:
    """Both meters on one GPU (or on the fake), and the work that is done on it."""

    def __init__(self) -> None:
        self.is_real = torch.cuda.is_available()
        self.nvml = None if self.is_real else FakeNvml(time.perf_counter_ns, FakeGpu(power=300.0))
        self.found: dict[str, Any] = {"date_utc": datetime.now(UTC).isoformat(timespec="seconds")}
        self.counter, self.power = NvmlEnergy(0, nvml=self.nvml), NvmlPower(0, nvml=self.nvml)
        self.found["device"] = self._name()
        self.found["probe_idle"] = self.counter.probe._asdict()
        for name, meter in (("counter", self.counter), ("power", self.power)):
            how = meter.provenances["energy_j"]
            self.found[name] = {"source": how.source, "tick_s": how.tick_s, "min_window_s": meter.min_window_s}
            self.found[name]["notes"] = list(how.notes)

    def _name(self) -> str:
        if not self.is_real:
            return "a fake NVML: says nothing of any device"
        import pynvml

        name: str = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
        return f"{name}, driver {pynvml.nvmlSystemGetDriverVersion()}, torch {torch.__version__}"

    def window(self, during: Callable[[], None], beside: Work | None = None) -> Reading:
        """`beside` is what goes on before and after, where the counter can't be read within."""
        self._lead(beside, before=True)
        self.power.start()
        self.counter.start()
        begun = time.perf_counter()
        during()
        seconds = time.perf_counter() - begun
        self.counter.stop()
        self.power.stop()
        self._lead(beside, before=False)
        [one], [other] = self.counter.collect(), self.power.collect()
        return Reading(seconds, one, other)

    def _lead(self, beside: Work | None, *, before: bool) -> None:
        if beside is not None and self.counter.wants_lead:
            is_over = self.counter.lead(before=before)
            while not is_over():
                beside(10)
                self.synchronize()

    def synchronize(self) -> None:
        if self.is_real:
            torch.cuda.synchronize()

    def calls_in(self, work: Work, seconds: float) -> int:
        """How many calls take so long, warm."""
        work(20)
        self.synchronize()
        begun, number = time.perf_counter(), 0
        while time.perf_counter() - begun < 0.5:
            work(10)
            self.synchronize()
            number += 10
        return max(1, round(number * seconds / (time.perf_counter() - begun)))

    def run(self, work: Work, number: int) -> Reading:
        return self.window(lambda: self.work_through(work, number), work)

    def work_through(self, work: Work, number: int) -> None:
        """So many calls, in portions that keep the device busy and the queue short."""
        for begin in range(0, number, 50):
            work(min(50, number - begin))
            self.synchronize()


def works(is_real: bool) -> dict[str, Work]:
    """Copies beyond the cache, products of bfloat16 matrices of random numbers, and kernels too small to fill a GPU."""
    device, dtype = ("cuda", torch.bfloat16) if is_real else ("cpu", torch.float32)
    side = 4096 if is_real else 256
    left, right, result = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(3))
    source = torch.rand(1 << (28 if is_real else 18), device=device)
    target, tiny = torch.empty_like(source), torch.rand(1024, device=device)

    def repeated(action: Callable[[], Any]) -> Work:
        return lambda number: [action() for _ in range(number)] and None

    return {
        "products": repeated(lambda: torch.mm(left, right, out=result)),
        "copies": repeated(lambda: target.copy_(source)),
        "tiny kernels": repeated(lambda: tiny.mul_(1.0)),
    }


def idle(bench: Bench, name: str) -> None:
    reading = bench.window(lambda: time.sleep(IDLE_S))
    bench.found[f"idle {name}"] = reading.as_data()
    say(f"idle {name}", reading)


def say(name: str, reading: Reading) -> None:
    data = reading.as_data()
    words = []
    for meter in ("counter", "power"):
        found = data[meter]
        number = (
            found.get("reason") or f"{found['watts']:7.2f} W ± {1.96 * found['uncertainty_j'] / reading.seconds:.2f}"
        )
        words.append(f"{meter} {number}")
    print(f"{name:<24} {reading.seconds:6.2f} s  {'   '.join(words)}", flush=True)


def loads(bench: Bench, of: dict[str, Work]) -> None:
    for name, work in of.items():
        reading = bench.run(work, bench.calls_in(work, LOAD_S))
        bench.found[name] = reading.as_data()
        say(name, reading)


def interpolated(edges: Sequence[tuple[int, float]], at_ns: float) -> float:
    index = min(max(1, bisect_right(edges, at_ns, key=lambda edge: edge[0])), len(edges) - 1)
    (begin_ns, before), (end_ns, after) = edges[index - 1], edges[index]
    return before + (after - before) * (at_ns - begin_ns) / (end_ns - begin_ns)


def plain(edges: Sequence[tuple[int, float]], at_ns: float) -> float:
    """What a reading at that moment would have shown: the last increment."""
    return edges[bisect_right(edges, at_ns, key=lambda edge: edge[0]) - 1][1]


def short_windows(bench: Bench, work: Work) -> None:
    """Errors of a plain difference against the counter interpolated between its increments, windows drawn at random."""
    number = bench.calls_in(work, SERIES_S)
    begin_ns = time.perf_counter_ns()
    bench.counter.start()
    bench.work_through(work, number)
    bench.counter.stop()
    edges = bench.counter.series(begin_ns, time.perf_counter_ns())
    bench.counter.collect()
    gaps = [(later[0] - earlier[0]) / 1e9 for earlier, later in pairwise(edges)]
    bench.found["edges_under_load"] = {
        "number": len(edges), "median_gap_s": statistics.median(gaps), "least_gap_s": min(gaps), "most_gap_s": max(gaps),
        "series": [((at_ns - edges[0][0]) / 1e9, joules - edges[0][1]) for at_ns, joules in edges],
    }  # fmt: skip
    print(f"under load {len(edges)} increments logged, {statistics.median(gaps) * 1e3:.2f} ms apart (median), "
          f"{min(gaps) * 1e3:.2f} to {max(gaps) * 1e3:.2f} ms")  # fmt: skip
    randomly, rows = random.Random(SEED), {}
    for seconds in WINDOWS_S:
        span_ns, length_ns = edges[-1][0] - edges[0][0], seconds * 1e9
        if length_ns > 0.9 * span_ns:
            continue
        errors = []
        for _ in range(NUM_WINDOWS):
            first = edges[0][0] + randomly.random() * (span_ns - length_ns)
            right = interpolated(edges, first + length_ns) - interpolated(edges, first)
            errors.append((plain(edges, first + length_ns) - plain(edges, first)) / right - 1)
        rows[seconds] = {"most": max(map(abs, errors)), "sd": statistics.pstdev(errors)}
        most, sd = rows[seconds]["most"], rows[seconds]["sd"]
        print(f"  a plain difference over {seconds:5.2f} s is off by up to {most:7.2%}, sd {sd:.2%}")
    bench.found["plain_difference"] = rows


def same_work(bench: Bench, work: Work) -> None:
    """A and B are the same, in ABBA order: the ratio of their energies should be 1."""
    number, ratios, times, blocks = bench.calls_in(work, BLOCK_S), [], [], []
    for pair in range(NUM_PAIRS):
        two = [bench.run(work, number) for _ in range(2)]
        blocks += [reading.as_data() for reading in two]
        first, second = two if pair % 2 == 0 else reversed(two)
        ratios.append(math.log(second.joules / first.joules))
        times.append(math.log(second.seconds / first.seconds))
    bench.found["same_work"] = {"calls": number, "blocks": blocks, "energy": spread(ratios), "time": spread(times)}
    print(
        f"the same work twice, {NUM_PAIRS} pairs of {BLOCK_S:g} s: energy ratio {said(ratios)}, time ratio {said(times)}"
    )


def spread(logs: Sequence[float]) -> dict[str, float]:
    mean, low, high = mean_interval(logs)
    return {"ratio": math.exp(mean), "low": math.exp(low), "high": math.exp(high)}


def said(logs: Sequence[float]) -> str:
    found = spread(logs)
    return f"{found['ratio']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"


def additivity(bench: Bench, work: Work) -> None:
    """Energy of k times as many calls, over k times the energy of once as many; and net of the power while idle."""
    number, joules = bench.calls_in(work, BLOCK_S), dict[int, list[float]]()
    seconds = dict[int, list[float]]()
    order = [times for _ in range(NUM_REPEATS) for times in TIMES]
    random.Random(SEED).shuffle(order)
    for times in order:
        reading = bench.run(work, times * number)
        joules.setdefault(times, []).append(reading.joules)
        seconds.setdefault(times, []).append(reading.seconds)
    once, rows = statistics.fmean(joules[1]), {}
    for times in TIMES[1:]:
        per_call = [found / (times * once) for found in joules[times]]
        rows[times] = {"ratio": statistics.fmean(per_call), "least": min(per_call), "most": max(per_call)}
        print(f"{times} times as many calls: {rows[times]['ratio']:.4f} of {times} times the energy "
              f"({rows[times]['least']:.4f} to {rows[times]['most']:.4f})")  # fmt: skip
    bench.found["additivity"] = {"calls": number, "joules": joules, "seconds": seconds, "rows": rows}


def main(path: str | None) -> None:
    bench = Bench()
    probe = bench.counter.probe
    print(bench.found["device"])
    ticks = f"every {probe.tick_s * 1e3:.2f} ms (sd {probe.jitter_s * 1e3:.2f}), read in {probe.read_s * 1e6:.1f} µs"
    print(f"the counter, idle: {ticks}, least increment {probe.smallest_j * 1e3:.0f} mJ")
    print(f"{bench.found['power']['source']}: every {bench.power.tick_s * 1e3:.1f} ms")
    idle(bench, "without a context")
    of = works(bench.is_real)
    bench.synchronize()
    idle(bench, "with a context")
    loads(bench, of)
    idle(bench, "after work")
    short_windows(bench, of["products"])
    same_work(bench, of["products"])
    additivity(bench, of["products"])
    bench.counter.close()
    bench.power.close()
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(bench.found, file, indent=1)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
