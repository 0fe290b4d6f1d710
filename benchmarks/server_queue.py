"""The server scenario in real time on a real body: the rate it finds, how punctual it is, and what closed loops hide.

    OMP_NUM_THREADS=1 python benchmarks/server_queue.py        # about a minute

The body is two matrix products of torch in one thread (some 2 ms). Printed are:
- the highest rate that keeps p95 within ten service times (one round, 30 s), beside the capacity; a queue with constant
  services would reach 85 % of it (Crommelin 1932);
- how late an idle worker begins a query, with sleeping alone and with sleeping and spinning;
- p99 as a closed loop sees it and from scheduled arrivals at 80 % of the capacity, without and with a stall of 100 ms
  in every 500th call.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from compressbench.core.server_rates import brackets
from compressbench.measure.arrivals import arrivals_ns, unit_arrivals
from compressbench.measure.calls import CallDetails
from compressbench.measure.open_loop import serve, sleep_then_spin
from compressbench.measure.server import ServerRule, find_highest_rate

CLOCK = time.perf_counter_ns
MS = 1_000_000


class Body:
    """Two matrix products, and a stall where one is asked for."""

    def __init__(self, stall_every: int = 0) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self._weights, self._inputs = torch.randn(768, 3072), torch.randn(8, 24, 768)
        self._stall_every, self._num_calls = stall_every, 0

    def __call__(self, index: int) -> None:
        with torch.inference_mode():
            (self._inputs[index % 8] @ self._weights) @ self._weights.T
        self._num_calls += 1
        if self._stall_every and self._num_calls % self._stall_every == 0:
            time.sleep(0.1)

    def take(self) -> CallDetails:
        return CallDetails()


def closed_loop(body: Body, count: int) -> list[int]:
    found = []
    for index in range(count):
        begun = CLOCK()
        body(index)
        found.append(CLOCK() - begun)
    return found


def p99_ms(nanoseconds: list[int] | tuple[int, ...]) -> float:
    return float(np.quantile(nanoseconds, 0.99)) / MS


def search(body: Body) -> None:
    services = closed_loop(body, 300)
    limit_s = 10 * float(np.median(services)) / 1e9
    found = find_highest_rate({"baseline": body}, ServerRule(0.95, limit_s, rounds=1, budget_s=30.0, resolution=0.05))
    capacity, variation = found.capacity_per_s["baseline"], np.std(services) / np.mean(services)
    print(f"services: median {np.median(services) / MS:.2f} ms, coefficient of variation {variation:.2f}")
    print(f"capacity {capacity:.0f}/s; limit of p95 {1000 * limit_s:.1f} ms")
    for trial in found.trials:
        late_us = 1e6 * (trial.lateness_p99_s or 0)
        print(
            f"  {trial.rate_per_s:6.0f}/s, {len(trial.latencies_ns)} queries, late by {late_us:.0f} us (p99): ", end=""
        )
        print(trial.reason or f"kept, p95 at most {1000 * (trial.quantile_bound_s or 0):.1f} ms")
    bracket = brackets(found.trials, "baseline").get(0)
    if bracket is None or bracket.kept is None:
        print(f"no rate: {found.reasons}")
    else:
        print(
            f"highest rate {bracket.kept:.0f}/s, {100 * bracket.kept / capacity:.0f} % of capacity {found.reasons or ''}"
        )


def punctuality(body: Body, capacity: float) -> None:
    def sleep_only(due_ns: int) -> int:
        while (now := CLOCK()) < due_ns:
            time.sleep((due_ns - now) / 1e9)
        return now

    waits: dict[str, Callable[[int], int]] = {
        "sleeping": sleep_only,
        "sleeping, then spinning": sleep_then_spin(CLOCK, time.sleep),
    }
    arrivals = arrivals_ns(unit_arrivals(800, 1), 0.4 * capacity)
    for name, wait_until in waits.items():
        late = np.array(serve(body, arrivals, CLOCK, wait_until).lateness_ns) / 1000
        p50, p99 = np.quantile(late, [0.5, 0.99])
        print(f"late by, {name}: median {p50:.2f} us, p99 {p99:.0f} us, max {late.max():.0f} us")


def omission(stall_every: int) -> None:
    body = Body(stall_every)
    closed = closed_loop(body, 2000)
    rate = 0.8 * 1e9 / float(np.mean(closed))
    served = serve(body, arrivals_ns(unit_arrivals(2000, 2), rate), CLOCK, sleep_then_spin(CLOCK, time.sleep))
    what = f"stall of 100 ms every {stall_every}" if stall_every else "no stalls"
    print(
        f"{what:26s} closed loop p99 {p99_ms(closed):7.2f} ms; open loop at 80 % load: services p99 "
        f"{p99_ms(served.services_ns):7.2f} ms, from scheduled arrival p99 {p99_ms(served.latencies_ns):7.2f} ms"
    )


def main() -> None:
    body = Body()
    services = closed_loop(body, 300)
    search(body)
    punctuality(body, 1e9 / float(np.mean(services)))
    omission(0)
    omission(500)


if __name__ == "__main__":
    main()
